"""Services: names, variables, commands, waiting for them, their logs."""

from __future__ import annotations

from typing import Any

from tests.acceptance.pipelines.case import DOCKER, Case, Job, var
from tests.acceptance.pipelines.case import case as any_case


def case(name: str, title: str, *jobs: Job, **more: Any) -> Case:
    return any_case(name, "1.13", title, *jobs, **{"on": (DOCKER,)} | more)


def services(*given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"image": "@image/full@", "services": list(given)} | more


def service(name: str = "web", **more: Any) -> dict[str, Any]:
    return {"name": f"@image/{name}@", **more}


def get(host: str, port: int = 8080) -> str:
    return f"curl -sS --retry 5 --retry-connrefused --retry-delay 1 http://{host}:{port}/"


CASES: tuple[Case, ...] = (
    case("service-image-name", "a service is reached by both names that its image gives", Job(
        script=[get("fleet-test__web"), get("fleet-test-web")], more=services(service()),
        lines=["hello from web ", "hello from web "])),
    case("service-alias", "and by its alias", Job(
        script=[get("site")], more=services(service(alias="site")), has=["hello from web"])),
    case("service-aliases", "several aliases are parted by spaces or commas", Job(
        script=[get("one"), get("two"), get("three")], more=services(service(alias="one two,three")),
        lines=["hello from web ", "hello from web ", "hello from web "])),
    case("service-network", "FF_NETWORK_PER_BUILD gives the job a network of its own", Job(
        script=[get("site"), "echo network $CI_BUILD_NETWORK_NAME"], more=services(service(alias="site")),
        variables={"FF_NETWORK_PER_BUILD": "true"}, has=["hello from web", "network runner-"])),
    case("service-variables", "variables of the service reach it, and may refer to the job's", Job(
        script=[get("site")], variables={"WHO": "world"},
        more=services(service(alias="site", variables=[var("GREETING", "dear $WHO")])),
        has=["hello from web dear world"])),
    case("service-public", "of the job's variables it gets the public ones", Job(
        script=[get("site")], variables=[var("GREETING", "open")], more=services(service(alias="site")),
        has=["hello from web open"]), Job(
        script=[get("site")], variables=[var("GREETING", "shut", public=False)], more=services(service(alias="site")),
        lines=["hello from web "])),
    case("service-command", "its command may be set", Job(
        script=[get("site", 9090)], has=["hello from web"],
        more=services(service(alias="site", command=["sh", "-c", "PORT=9090 exec /web"])))),
    case("service-entrypoint", "and its entry point", Job(
        script=[get("site", 9091)], has=["hello from web"],
        more=services(service(alias="site", entrypoint=["sh", "-c"], command=["PORT=9091 exec /web"])))),
    case("service-two", "several services run at once, each under its name", Job(
        script=[get("one"), get("two")], lines=["hello from web first", "hello from web second"],
        more=services(service(alias="one", variables=[var("GREETING", "first")]),
                      service(alias="two", variables=[var("GREETING", "second")])))),
    case("service-same-alias", "a name that is taken is skipped with a warning", Job(
        script=[get("site")], more=services(service(alias="site", variables=[var("GREETING", "first")]),
                                            service(alias="site", variables=[var("GREETING", "second")])),
        lines=["hello from web first"], pattern="(?i)alias 'site'")),
    case("service-silent", "one that never answers is warned about, and the job goes on", Job(
        more=services(service("silent")), lines=["hello"], pattern="(?i)warning"), runner="strict2"),
    case("service-dying", "one that ends is warned about, with its log", Job(
        more=services(service("dying")), lines=["hello"], has=["cannot open the database"]), runner="strict2"),
    case("service-log", "CI_DEBUG_SERVICES shows the services' logs in the job's", Job(
        script=[get("site"), "sleep 2"], variables={"CI_DEBUG_SERVICES": "true", "GREETING": "loud"},
        more=services(service(alias="site")), has=["web says loud"])),
    case("service-expanded", "variables in its image's name are filled in", Job(
        script=[get("site")], variables={"WHOSE": "fleet-test"}, has=["hello from web"],
        more=services({"name": "$WHOSE/web:1", "alias": "site"}))),
    case("service-missing", "an image that does not exist fails the job", Job(
        more=services({"name": "@registry@/no/such:1"}, credentials="@credentials@"), state="failed",
        reason="runner_configuration_error", lacks=["\nhello"])),
    case("service-allowed", "services outside of allowed_services are refused", Job(
        more=services(service("silent"), image="@image/busy@"), state="failed", reason="runner_configuration_error",
        lacks=["\nhello"]), runner="strict"),
    case("service-limit", "more services than services_limit fail the job", Job(
        more=services(service(), service(alias="two"), image="@image/busy@"), state="failed",
        reason="runner_configuration_error", lacks=["\nhello"]), runner="strict"),
    case("service-of-runner", "services of the runner come first", Job(
        script=[get("always"), get("site")], more=services(service(alias="site", variables=[var("GREETING", "job")])),
        lines=["hello from web runner", "hello from web job"]), runner="strict2"),
    case("service-option", "unknown options of a service are refused with exit code 3", Job(
        more=services(service(executor_opts={"docker": {"unheard_of": 1}})), state="failed",
        reason="runner_system_failure", exit_code=3, lacks=["\nhello"])),
)  # fmt: skip
