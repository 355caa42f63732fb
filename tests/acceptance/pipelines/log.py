"""The log: sections, time stamps, limits, what cannot be read."""

from __future__ import annotations

from typing import Any

from tests.acceptance.pipelines.case import Case, Job, case, everywhere, failed

OPTIONAL = ("after_script", "restore_cache", "download_artifacts", "archive_cache", "upload_artifacts")
ORDER = ("prepare_executor", "prepare_script", "get_sources", "step_script", "after_script", "cleanup_file_variables")
SECTION = r"section_start:\d+:{0}\r\x1b\[0K[\s\S]*section_end:\d+:{0}\r\x1b\[0K"
WITHOUT_SECTIONS = {"trace_sections": False, "failure_reasons": ["script_failure"]}


def lines_are_stamped(world: Any, view: Any, trace: bytes) -> list[str]:
    bad = [line for line in trace.split(b"\n") if line and not (line[:2] == b"20" and line[26:28] == b"Z ")]
    return [f"no stamp: {bad[0]!r}"] if bad else []


def is_cut(world: Any, view: Any, trace: bytes) -> list[str]:
    wrongs = [] if 64 << 10 <= len(trace) < (64 << 10) + 1000 else [f"it has {len(trace)} bytes"]
    return wrongs + ([] if trace.count(b"reached its limit") == 1 else ["not one notice"])


def ends_with_verdict(world: Any, view: Any, trace: bytes) -> list[str]:
    return [] if b"Job succeeded" in trace.split(b"\n")[-2] else ["the verdict is not the last line"]


CASES: tuple[Case, ...] = (
    case("log-heading", "1.6", "the log begins with the runner's version, name, short token and system id", Job(
        has=["Running with fleet", "  on acceptance ", "system ID: "]),
        differs=everywhere("it names fleet and its version")),
    case("log-flags", "1.6", "then come the feature flags that are not at their default", Job(
        variables={"FF_USE_FASTZIP": "false"}, has=["feature flags: FF_USE_FASTZIP:false"])),
    case("log-flags-none", "1.6", "no line about them where there are none", Job(lacks=["feature flags:"])),
    case("log-verdict", "1.6", "the last line says how the job ended, after all cleaning", Job(also=ends_with_verdict)),
    case("log-verdict-failed", "1.6", "that of a failed job gives the reason and the exit code", failed(
        7, script=["exit 7"], has=["ERROR: Job failed: exit code 7"])),
    *(case(f"log-section-{name}", "1.11", f"section `{name}` frames its stage", Job(
        after=["echo after"], files={"README": "x\n"}, pattern=SECTION.format(name)))
      for name in ORDER),
    case("log-section-order", "1.6", "the stages run in GitLab Runner's order", Job(
        after=["echo after"], files={"README": "x\n"},
        pattern="(?s)" + ".*".join(ORDER))),
    case("log-section-silent", "1.6", "a stage with nothing to do has no section", Job(
        also=lambda world, view, trace: [
            name for name in OPTIONAL if f":{name}".encode() in trace])),
    case("log-no-sections", "1.11", "no sections where GitLab does not show them", Job(
        more={"features": WITHOUT_SECTIONS}, lines=["hello"],
        also=lambda world, view, trace: ["there are some"] if b"section_" in trace else [])),
    case("log-stamps", "1.11", "every line has its instant and its stream", Job(
        also=lines_are_stamped, pattern=r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z 01O hello\n")),
    case("log-stamp-runner", "1.11", "the runner's own lines are stream 00", Job(
        pattern=r"Z 00O \S*Running with")),
    case("log-stamps-off", "1.11", "FF_TIMESTAMPS=false leaves them out", Job(
        variables={"FF_TIMESTAMPS": "false"}, pattern=r"\nhello\n",
        also=lambda world, view, trace: ["some"] if any(line[:2] == b"20" for line in trace.split(b"\n")) else [])),
    case("log-continued", "1.11", "a line that goes on is marked", Job(
        script=["printf half; sleep 2.5; echo ' rest'"], lines=["half rest"], pattern=r"Z 01O\+ rest")),
    case("log-carriage", "1.11", "a carriage return shows what is there at once", Job(
        script=["printf '10%%\\r'; sleep 0.2; printf '20%%\\r'; echo done"], has=["10%", "20%", "done"])),
    case("log-limit", "1.11", "output_limit cuts the log once, with a notice, and the job goes on", failed(
        5, script=["head -c 300000 /dev/zero | tr '\\0' 'x'", "echo", "exit 5"], also=is_cut,
        has=["ERROR: Job failed: exit code 5"]), runner="limits"),
    case("log-limit-utf8", "1.11", "it cuts no character in two", Job(
        script=["i=0; while [ $i -lt 3000 ]; do echo 'éééééééééééééééééééé'; i=$((i+1)); done"],
        also=lambda world, view, trace: [] if trace.decode("utf-8") else ["nothing"]), runner="limits"),
    case("log-invalid", "1.11", "bytes that are no UTF-8 are replaced", Job(
        script=[r"printf 'a\377\376b\n'"], has=["\ufffd"],
        also=lambda world, view, trace: [] if trace.decode("utf-8") else ["nothing"])),
    case("log-halves", "1.11", "a character that comes in two writes is whole", Job(
        script=[r"printf 'half \342\202'; sleep 1.5; printf '\254 whole\n'"], lines=["half \u20ac whole"])),
    case("log-loud", "1.11", "sixty thousand lines are all there", Job(
        script=["seq 1 60000"], lines=["1", "30000", "60000"])),
    case("log-long-line", "1.11", "a line of a megabyte is whole", Job(
        script=["head -c 1000000 /dev/zero | tr '\\0' 'z'; echo end"], has=["z" * 1000 + "end"])),
    case("log-colours", "1.11", "colours come through", Job(
        script=[r"printf '\033[31mred\033[0m\n'"], pattern="\x1b\\[31mred\x1b\\[0m", lines=["red"])),
)  # fmt: skip
