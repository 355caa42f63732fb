"""How scripts run: shells, steps, hooks, and what is shown of commands."""

from __future__ import annotations

from tests.acceptance.pipelines.case import Case, Job, case, everywhere, failed, step, var

GREEN_ECHO = "\x1b\\[32;1m\\$ echo hello\x1b\\[0;m"
STAMP = r"\S+Z [0-9a-f]{2}[OE][ +]"

CASES: tuple[Case, ...] = (
    case("script-bash", "1.8", "bash runs the script where it is there", Job(
        script=['echo "shell ${BASH_VERSION:+is bash}"'], lines=["shell is bash"])),
    case("script-sh", "1.8", "sh runs it where the runner's `shell` says so", Job(
        script=['echo "bash is ${BASH_VERSION:-not here}"', "echo $0"], lines=["bash is not here"]),
        on=("instance",), runner="sh"),
    case("script-sh-image", "1.8", "sh runs it in an image without bash", Job(
        script=['echo "bash is ${BASH_VERSION:-not here}"'], more={"image": "@image/busy@"},
        lines=["bash is not here"]),
        on=("docker-autoscaler",)),
    case("script-pwsh", "1.8", 'PowerShell runs the script where `shell = "pwsh"` says so',
         not_yet=everywhere("built; no test runs it, for no package brings a PowerShell")),
    case("script-shown", "1.8", "each command is shown before it runs, in green", Job(
        pattern=GREEN_ECHO, lines=["$ echo hello", "hello"])),
    case("script-shown-folded", "1.8", "of a command with several lines the first is shown, marked as collapsed", Job(
        script=["echo one\necho two"], lines=["$ echo one # collapsed multi-line command", "one", "two"])),
    case("script-sections", "1.8", "FF_SCRIPT_SECTIONS folds commands with several lines into sections", Job(
        script=["echo one\necho two"], variables={"FF_SCRIPT_SECTIONS": "true"}, lines=["one", "two"],
        pattern=r"section_start:\d+:section_\w+\[hide_duration=true,collapsed=true\]\r\x1b\[0K")),
    case("script-blank", "1.8", "empty commands and comments do no harm", Job(
        script=["", "# nothing", "echo fine"], lines=["fine"])),
    case("script-errexit", "1.8", "the first command that fails ends the script", failed(
        3, script=["echo one", "(exit 3)", "echo two"], lines=["one"], lacks=["two"])),
    case("script-errexit-inside", "1.8", "so does one inside a command of several lines", failed(
        script=["echo one\nfalse\necho two"], lines=["one"], lacks=["\ntwo"])),
    case("script-pipefail", "1.8", "a pipe fails with any of its parts, where the shell can do that", failed(
        script=["false | cat", "echo two"], lacks=["\ntwo"])),
    case("script-check", "1.8", "FF_ENABLE_BASH_EXIT_CODE_CHECK looks at the status of each command", failed(
        script=["false && true", "echo two"], variables={"FF_ENABLE_BASH_EXIT_CODE_CHECK": "true"}, lacks=["\ntwo"])),
    case("script-no-check", "1.8", "without it only what errexit sees ends the script", Job(
        script=["false && true", "echo two"], lines=["two"])),
    case("script-noclobber", "1.8", "files may be overwritten by redirection", Job(
        script=["echo 1 >f; echo 2 >f; cat f"], lines=["2"])),
    case("script-stdin", "1.8", "commands have an empty standard input", Job(
        script=["cat; read line || echo 'nothing to read'", "echo after"], lines=["nothing to read", "after"])),
    case("script-exit-0", "1.8", "`exit 0` ends the script and the job succeeds", Job(
        script=["echo one", "exit 0", "echo two"], lines=["one"], lacks=["\ntwo"])),
    case("script-open-quote", "1.8", "an open quote fails the job after the commands before it", Job(
        script=["echo before", "echo 'open"], state="failed", reason="script_failure", exit_code=2)),
    case("script-one-shell", "1.8", "all commands of a step share a shell", Job(
        script=["X=1; cd /", 'echo "X is $X in $PWD"'], lines=["X is 1 in /"])),
    case("script-cwd", "1.8", "a step begins in the project directory", Job(
        script=['[ "$PWD" = "$CI_PROJECT_DIR" ] && echo "at home"'], lines=["at home"])),
    case("script-fresh-after", "1.8", "after_script has a shell of its own, in the project directory", Job(
        script=["X=1; export Y=1; cd /"],
        after=['echo "X is ${X:-gone}, Y is ${Y:-gone}"', '[ "$PWD" = "$CI_PROJECT_DIR" ] && echo "at home"'],
        lines=["X is gone, Y is gone", "at home"])),
    case("script-steps", "1.8", "several steps run in order, each in a shell of its own", Job(
        more={"steps": [step("script", "echo one; export LOST=1"), step("second", "echo two ${LOST:-gone}"),
                        step("third", "echo three")]},
        lines=["one", "two gone", "three"])),
    case("script-steps-stop", "1.8", "the first step that fails ends the steps, and after_script runs", failed(
        4, more={"steps": [step("script", "echo one"), step("second", "exit 4"), step("third", "echo three"),
                           step("after_script", "echo after $CI_JOB_STATUS")]},
        lines=["one", "after failed"], lacks=["\nthree"])),
    case("script-release", "3", "lines of a `release` step are expanded by the runner", Job(
        more={"steps": [step("script", "true"), step("release", "echo 'tag $CI_COMMIT_REF_NAME'")]},
        lines=["tag main"])),
    case("script-none", "1.8", "a job without commands succeeds", Job(more={"steps": []}), Job(
        more={"steps": [step("script")]})),
    case("script-background", "1.8", "what a command leaves running ends with its stage", Job(
        script=["sleep 300 & echo $! >pid", "echo left"],
        after=["sleep 0.3; if kill -0 $(cat pid) 2>/dev/null; then echo runs; else echo ended; fi"],
        lines=["left", "ended"]), on=("instance",)),
    case("script-both-streams", "1.8", "output and errors are both in the log, each with its mark", Job(
        script=["echo to-output; sleep 0.2; echo to-errors >&2"], lines=["to-output", "to-errors"],
        pattern=r"Z 01O to-output[\s\S]*Z 01E to-errors")),
    case("script-unicode", "1.8", "scripts, variables and names hold any Unicode text", Job(
        script=["echo 'Grüße 🚀 漢字 \u202e'", 'echo "<$WORD>"', "mkdir -p 'dir with späce' && ls -d dir*"],
        variables={"WORD": "ẅörd  two"}, more={"name": "prüfe 漢字"},
        lines=["Grüße 🚀 漢字 \u202e", "<ẅörd  two>", "dir with späce"])),
    case("script-quotes", "1.8", "quotes, dollars and backslashes come through as written", Job(
        script=[r"""printf '%s\n' 'a"b' "c'd" \$HOME 'e\nf' "$(echo '`')" """],
        lines=['a"b', "c'd", "$HOME", r"e\nf", "`"])),
    case("script-long", "1.8", "a command of 200 kB and a thousand commands run", Job(
        script=[f"echo '{'y' * 200_000}' | wc -c", *(f"true {n}" for n in range(1000)), "echo last"],
        lines=["200001", "last"])),
    case("script-surrogate", "1.8", "what no shell can hold is replaced and said", Job(
        script=["echo 'a\ud800b'", "echo a\0b"], lines=["a\ufffdb", "ab"], has=["what no shell can hold"])),
    case("script-pre-build", "1.8", "pre_build_script and post_build_script stand around steps, not after_script", Job(
        script=["echo script"], after=["echo after"],
        lines=["pre-build of the runner", "script", "post-build of the runner", "after"],
        also=lambda world, view, trace: [] if trace.count(b" pre-build of the runner\n") == 1 else ["not once"]),
        runner="scripts"),
    case("script-get-sources-hooks", "1.8", "scripts of the runner and hooks of the job stand around get_sources", Job(
        script=["echo script"], files={"README": "readme\n"},
        more={"hooks": [{"name": "pre_get_sources_script", "script": ["echo hook before"]},
                        {"name": "post_get_sources_script", "script": ["cat README", "echo hook behind"]}]},
        lines=["pre-sources of the runner", "hook before", "readme", "hook behind", "post-sources of the runner",
               "script"]), runner="scripts"),
    case("script-hook-fails", "1.8", "a hook that fails is a failure of get_sources", Job(
        script=["echo never"], after=["echo after"],
        more={"hooks": [{"name": "pre_get_sources_script", "script": ["exit 8"]}]},
        state="failed", reason="script_failure", exit_code=8, lacks=["\nnever", "\nafter"])),
    case("script-debug", "1.8", "CI_DEBUG_TRACE shows what the shell does, and masks in it", Job(
        script=['V=shown; test "$V" = shown && echo "$HIDDEN"'],
        variables=[var("CI_DEBUG_TRACE", "true"), var("HIDDEN", "@secret@", masked=True)],
        has=["+ V=shown"], lacks=["@secret@"])),
    case("script-debug-refused", "1.8", "debug_trace_disabled refuses it with a warning", Job(
        script=["V=shown"], variables={"CI_DEBUG_TRACE": "true"},
        has=["CI_DEBUG_TRACE is set, and this runner does not allow debug traces"], lacks=["+ V=shown"]),
        runner="limits"),
)  # fmt: skip
