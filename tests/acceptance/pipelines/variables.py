"""Variables: where they come from, which wins, expansion, files; and masking."""

from __future__ import annotations

import secrets

from tests.acceptance.pipelines.case import DOCKER, INSTANCE, Case, Job, case, var

OWN = (
    "CI", "GITLAB_CI", "CI_SERVER", "CI_JOB_ID", "CI_JOB_TOKEN", "CI_PROJECT_DIR", "CI_BUILDS_DIR", "CI_CONCURRENT_ID",
    "CI_CONCURRENT_PROJECT_ID", "CI_JOB_STATUS", "CI_JOB_TIMEOUT", "CI_RUNNER_SHORT_TOKEN", "CI_RUNNER_VERSION",
    "CI_RUNNER_EXECUTABLE_ARCH", "RUNNER_TEMP_PROJECT_DIR", "CI_SHARED_ENVIRONMENT", "FF_TIMESTAMPS", "GITLAB_ENV",
)  # fmt: skip
MISSING = f'for n in {" ".join(OWN)}; do eval "[ -n \\"\\${{$n:-}}\\" ] || echo missing $n"; done; echo looked'
MADE_UP = secrets.token_hex(12)
PARAMETERS = ("private_token", "authenticity_token", "rss_token", "x-amz-signature", "x-amz-credential",
              "x-amz-security-token")  # fmt: skip

CASES: tuple[Case, ...] = (
    case("variable-own", "1.10", "the runner's own variables are there", Job(
        script=[MISSING], lines=["looked"], lacks=["\nmissing "])),
    case("variable-values", "1.10", "they say what is so", Job(
        script=["echo server $CI_SERVER, status $CI_JOB_STATUS, timeout $CI_JOB_TIMEOUT, shared $CI_SHARED_ENVIRONMENT",
                'case $CI_PROJECT_DIR in "$CI_BUILDS_DIR"/*) echo below;; esac',
                '[ "$RUNNER_TEMP_PROJECT_DIR" = "$CI_PROJECT_DIR.tmp" ] && echo "its own"'],
        more={"timeout": 1234},
        lines=["server yes, status running, timeout 1234, shared true", "below", "its own"])),
    case("variable-image", "1.10", "CI_JOB_IMAGE names the image of the job", Job(
        script=['echo "image is ${CI_JOB_IMAGE:-none}"'], more={"image": "@image/full@"},
        lines=["image is fleet-test/full:1"])),
    case("variable-builds", "1.10", "the builds directory is /builds in a container", Job(
        script=["echo $CI_BUILDS_DIR"], lines=["/builds"]), on=(DOCKER,)),
    case("variable-order", "1.10", "the job's variables win over the runner's `environment`", Job(
        script=['echo "$FROM_RUNNER|$BOTH|$FROM_JOB"'], variables={"BOTH": "of the job", "FROM_JOB": "too"},
        lines=["of the runner|of the job|too"]), runner="scripts"),
    case("variable-environment-expanded", "1.10", "variables of the runner's `environment` may refer to others", Job(
        script=['echo "$POINTS"'], lines=["to of the runner"]), runner="scripts"),
    case("variable-last", "1.10", "of several definitions the last wins", Job(
        script=['echo "it is $TWICE"'], variables=[var("TWICE", "first"), var("TWICE", "last")],
        lines=["it is last"])),
    case("variable-flags", "1.10", "feature flags are variables with their resolved value", Job(
        script=['echo "$FF_TIMESTAMPS $FF_USE_FASTZIP $FF_NETWORK_PER_BUILD $FF_SCRIPT_SECTIONS"'],
        variables={"FF_SCRIPT_SECTIONS": "1"}, lines=["true true false true"])),
    case("variable-flags-of-runner", "1.10", "the runner's feature flags beat the job's", Job(
        script=["echo $FF_SCRIPT_SECTIONS", "echo one\necho two"], variables={"FF_SCRIPT_SECTIONS": "false"},
        lines=["true", "two"], pattern=r"\[hide_duration=true,collapsed=true\]"), runner="scripts"),
    case("variable-expanded", "1.10", "$NAME, ${NAME} and %NAME% are expanded once, $$ is a dollar", Job(
        script=['echo "$A|$B|$C|$D"'],
        variables=[var("WHO", "world"), var("A", "hello $WHO"), var("B", "${WHO}s"), var("C", "%WHO%"),
                   var("D", "cost $$5")],
        lines=["hello world|worlds|world|cost $5"])),
    case("variable-once", "1.10", "what was put in is not expanded again", Job(
        script=['echo "$OUTER"'], variables=[var("INNER", "$WHO"), var("WHO", "x"), var("OUTER", "<$INNER>")],
        lines=["<$WHO>"])),
    case("variable-cycle", "1.10", "variables that refer to themselves do no harm", Job(
        script=['echo "<$A>"'], variables=[var("A", "a$B"), var("B", "b$A")], lines=["<ab$A>"])),
    case("variable-raw", "1.10", "raw variables are not expanded", Job(
        script=['echo "$RAW"'], variables=[var("WHO", "world"), var("RAW", "hello $WHO", raw=True)],
        lines=["hello $WHO"])),
    case("variable-file", "1.10", "a file variable is the path of a file with the content", Job(
        script=['cat "$FILED"', 'echo "$POINTS"', '[ "$POINTS" = "at $FILED" ] && echo "the same path"'],
        variables=[var("WHO", "world"), var("FILED", "content of $WHO\n", file=True), var("POINTS", "at $FILED")],
        lines=["content of world", "the same path"], has=[".tmp/FILED"])),
    case("variable-file-gone", "1.10", "the files are gone after the job", Job(
        script=["ls $RUNNER_TEMP_PROJECT_DIR"], variables=[var("FILED", "content", file=True)], lines=["FILED"]), Job(
        script=["ls -A $RUNNER_TEMP_PROJECT_DIR"], lacks=["\nFILED\n"])),
    case("variable-env-file", "1.10", "what a stage writes to $GITLAB_ENV is a variable of the later ones", Job(
        script=['echo HANDED_ON=value >>"$GITLAB_ENV"'], after=["echo got $HANDED_ON"], lines=["got value"])),
    case("variable-names", "1.10", "a name that no shell takes is said in a warning", Job(
        script=["echo fine"], variables=[var("with-dash", "1"), var("1st", "1")],
        has=["variable 'with-dash' is not in the environment"], lines=["fine"])),
    case("variable-heavy", "1.10", "a variable of a megabyte reaches the script", Job(
        script=["echo ${#HEAVY}", "ls / >/dev/null && echo programs start"],
        variables=[var("HEAVY", "x" * (1 << 20))], lines=["1048576", "programs start"])),
    case("variable-lines", "1.10", "values with line ends, quotes and Unicode come through", Job(
        script=['printf "%s" "$TEXT" | wc -l', 'printf "%s\\n" "$TEXT"'],
        variables={"TEXT": "first 'one'\nsecond \"two\"\nthird ü"},
        lines=["2", "first 'one'", 'second "two"', "third ü"])),
    case("variable-path", "1.10", "PATH may be changed by a variable", Job(
        script=['echo "$PATH"'], variables={"PATH": "/usr/bin:/bin:/opt/of-the-job"},
        has=["/opt/of-the-job"])),
    case("variable-status", "1.10", "CI_JOB_STATUS is `running` in the script and its outcome in after_script", Job(
        script=["echo $CI_JOB_STATUS", "exit 3"], after=["echo then $CI_JOB_STATUS"], state="failed",
        reason="script_failure", exit_code=3, lines=["running", "then failed"])),
    case("variable-shared", "1.10", "on a machine for one job CI_DISPOSABLE_ENVIRONMENT stands instead",
         proof="tests/unit/execution/test_variables.py::test_a_disposable_machine_is_called_so"),
    case("mask-value", "1.10", "masked variables are hidden", Job(
        script=['echo "<$HIDDEN>"', "echo '@secret@'"], variables=[var("HIDDEN", "@secret@", masked=True)],
        lines=["<[MASKED]>", "[MASKED]"], lacks=["@secret@"])),
    case("mask-short", "1.10", "also one of a single character", Job(
        script=["echo axbxc"], variables=[var("ONE", "x", masked=True)], lines=["a[MASKED]b[MASKED]c"])),
    case("mask-longest", "1.10", "of values within each other the longest is hidden first", Job(
        script=["echo '<@secret@@secret@-more>'"],
        variables=[var("SHORT", "@secret@", masked=True), var("LONG", "@secret@@secret@-more", masked=True)],
        lines=["<[MASKED]>"])),
    case("mask-across", "1.10", "also across writes and pauses", Job(
        script=["printf '<%.6s' \"$HIDDEN\"; sleep 1.3; printf '%s>\\n' \"${HIDDEN#??????}\""],
        variables=[var("HIDDEN", "@secret@", masked=True)], lines=["<[MASKED]>"], lacks=["@secret@"])),
    case("mask-lines", "1.10", "a value with line ends is hidden as a whole", Job(
        script=['echo "<$HIDDEN>"'], variables=[var("HIDDEN", "one-@secret@\ntwo-@secret@", masked=True)],
        lines=["<[MASKED]>"], lacks=["@secret@"])),
    case("mask-token", "1.10", "the job's token is hidden", Job(
        script=['echo "token $CI_JOB_TOKEN."'], lines=["token [MASKED]."])),
    case("mask-prefixes", "1.10", "what follows the beginning of a GitLab token is hidden", Job(
        script=[f'echo "{prefix}{MADE_UP}."' for prefix in ("glpat-", "gldt-", "glrt-", "glptt-", "_gitlab_session=")],
        has=["glpat-[MASKED]", "gldt-[MASKED]", "glrt-[MASKED]", "glptt-[MASKED]", "_gitlab_session=[MASKED]"],
        lacks=[MADE_UP])),
    case("mask-prefixes-of-gitlab", "1.10", "also after the prefixes that the payload names", Job(
        script=[f'echo "acme-{MADE_UP}" "gloas-{MADE_UP}"'],
        more={"features": {"trace_sections": True, "token_mask_prefixes": ["acme-"],
                           "failure_reasons": ["script_failure"]}},
        has=["acme-[MASKED]", "gloas-[MASKED]"], lacks=[MADE_UP])),
    case("mask-prefixes-off", "1.10", "FF_MASK_ALL_DEFAULT_TOKENS=false leaves the default prefixes out", Job(
        script=["echo 'gldt-not-hidden'"], variables={"FF_MASK_ALL_DEFAULT_TOKENS": "false"},
        lines=["gldt-not-hidden"])),
    case("mask-parameters", "1.10", "secret parameters of addresses are hidden", Job(
        script=[f'echo "https://example.com/?{name}={MADE_UP}&x=1"' for name in PARAMETERS],
        has=[f"{name}=[MASKED]&x=1" for name in PARAMETERS], lacks=[MADE_UP])),
    case("mask-errors", "1.10", "standard error is masked, too", Job(
        script=['echo "<$HIDDEN>" >&2'], variables=[var("HIDDEN", "@secret@", masked=True)], lines=["<[MASKED]>"],
        lacks=["@secret@"])),
    case("mask-checksum", "1.10", "length and checksum are those of the masked log", Job(
        script=['echo "$HIDDEN"'], variables=[var("HIDDEN", "@secret@", masked=True)],
        also=lambda world, view, trace: [] if view.trace_size == len(trace) else ["another length"])),
    case("mask-file", "1.10", "the content of a masked file variable is hidden", Job(
        script=['cat "$FILED"'], variables=[var("FILED", "@secret@", masked=True, file=True)],
        has=["[MASKED]"], lacks=["@secret@"]), on=(INSTANCE, DOCKER)),
)  # fmt: skip
