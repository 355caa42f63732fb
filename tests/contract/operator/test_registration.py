"""`fleetctl register | verify | unregister | reset-token | list` against a GitLab that checks every word."""

from __future__ import annotations

import pathlib
import tomllib

from fleet.demo.gitlab import PretendGitLab
from tests.contract.operator.conftest import Fleetctl, Said


def entries(config: pathlib.Path) -> list[dict]:
    return tomllib.loads(config.read_text()).get("runners", [])


def registered(fleetctl: Fleetctl, config: pathlib.Path, gitlab: PretendGitLab, token: str, *more: str) -> Said:
    return fleetctl("register", "-n", "-c", config, "--url", gitlab.url, "--token", token, "--executor", "shell", *more)


def test_a_token_from_gitlabs_pages_becomes_an_entry(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    said = registered(fleetctl, config, gitlab, runner["token"], "--name", "bastion", "--limit", "4")
    assert said.code == 0, said.err
    [entry] = entries(config)
    assert entry["id"] == runner["id"]
    assert entry["token"] == runner["token"]
    assert entry["name"] == "bastion"
    assert entry["limit"] == 4
    assert entry["token_obtained_at"].tzinfo is not None
    assert config.stat().st_mode & 0o777 == 0o600
    [seen] = gitlab.runners()
    assert list(seen["managers"]) == [(config.parent / ".runner_system_id").read_text().strip()]
    assert fleetctl("config", "lint", "-c", config).code == 0


def test_the_environment_says_what_options_do_not(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    said = fleetctl(
        "register",
        "--non-interactive",
        CONFIG_FILE=str(config),
        CI_SERVER_URL=gitlab.url,
        CI_SERVER_TOKEN=runner["token"],
        RUNNER_NAME="from the environment",
        RUNNER_EXECUTOR="ssh",
        SSH_HOST="192.0.2.7",
        SSH_USER="ci",
    )
    assert said.code == 0, said.err
    [entry] = entries(config)
    assert (entry["name"], entry["executor"]) == ("from the environment", "ssh")
    assert entry["ssh"] == {"host": "192.0.2.7", "user": "ci"}


def test_what_the_server_sets_is_refused_beside_a_glrt_token_and_named(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    said = registered(fleetctl, config, gitlab, runner["token"], "--tag-list", "a,b", "--paused", "true")
    assert said.code == 2
    assert "--tag-list, --paused" in said.err
    assert not config.exists()
    assert gitlab.runners()[0]["managers"] == {}


def test_a_registration_token_makes_a_runner_with_its_attributes(fleetctl, config, gitlab) -> None:
    said = fleetctl(
        "register", "-n", "-c", config, "-u", gitlab.url, "-r", gitlab.registration_token, "--executor", "shell",
        "--name", "old", "--tag-list", "a,b", "--maximum-timeout", "700",
    )  # fmt: skip
    assert said.code == 0, said.err
    [seen] = gitlab.runners()
    assert seen["legacy"]
    assert seen["attributes"]["tag_list"] == "a,b"
    assert seen["attributes"]["run_untagged"] is False
    assert seen["attributes"]["locked"] is True
    assert seen["attributes"]["maximum_timeout"] == 700
    [entry] = entries(config)
    assert entry["token"] == seen["token"] != gitlab.registration_token


def test_a_runner_that_could_not_be_saved_is_taken_back(fleetctl, config, gitlab) -> None:
    config.write_text("concurrent = 1\nrunners = []\n")  # a list that nothing can be appended to in place
    said = fleetctl(
        "register", "-n", "-c", config, "-u", gitlab.url, "-r", gitlab.registration_token, "--executor", "shell"
    )
    assert said.code == 3
    assert gitlab.runners() == []


def test_an_entry_that_would_break_the_file_is_refused_before_gitlab_hears_of_it(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    said = registered(fleetctl, config, gitlab, runner["token"], "--prepare-timeout", "soon")
    assert said.code == 3
    assert "prepare_timeout" in said.err
    assert not config.exists()
    assert gitlab.runners()[0]["managers"] == {}


def test_the_same_runner_is_not_added_twice(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    assert registered(fleetctl, config, gitlab, runner["token"], "--name", "one").code == 0
    before = config.read_text()
    said = registered(fleetctl, config, gitlab, runner["token"], "--name", "two")
    assert said.code == 1
    assert "has this runner already, as one" in said.err
    assert config.read_text() == before


def test_a_token_that_gitlab_does_not_know_is_told_without_showing_it(fleetctl, config, gitlab) -> None:
    token = "glrt-" + "x" * 12 + "secretend"
    said = registered(fleetctl, config, gitlab, token)
    assert said.code == 1
    assert "secretend" not in said.err + said.out
    assert not config.exists()


def test_a_server_that_is_not_there_is_another_exit_code(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    gitlab.outage()
    said = registered(fleetctl, config, gitlab, runner["token"])
    assert said.code == 4
    assert not config.exists()


def test_a_template_fills_in_what_no_option_says(fleetctl, config, gitlab, tmp_path) -> None:
    template = tmp_path / "template.toml"
    template.write_text(
        '[[runners]]\n  name = "from the template"\n  limit = 9\n  [runners.autoscaler]\n    plugin = "local"\n'
        "    max_instances = 3\n    [[runners.autoscaler.policy]]\n      idle_count = 1\n"
    )
    runner = gitlab.create_runner()
    said = fleetctl(
        "register", "-n", "-c", config, "-u", gitlab.url, "-t", runner["token"], "--executor", "instance",
        "--template-config", template, "--autoscaler-max-instances", "5", "--limit", "2",
    )  # fmt: skip
    assert said.code == 0, said.err
    [entry] = entries(config)
    assert (entry["name"], entry["limit"]) == ("from the template", 2)
    assert entry["autoscaler"]["plugin"] == "local"
    assert entry["autoscaler"]["max_instances"] == 5
    assert entry["autoscaler"]["policy"] == [{"idle_count": 1}]


def test_what_is_missing_is_named_when_nobody_can_be_asked(fleetctl, config) -> None:
    said = fleetctl("register", "-n", "-c", config, "--executor", "shell")
    assert said.code == 2
    assert "CI_SERVER_URL" in said.err


def test_verify_deletes_only_what_gitlab_refuses(fleetctl, config, gitlab) -> None:
    good, dead = gitlab.create_runner(), gitlab.create_runner()
    for runner, name in ((good, "good"), (dead, "dead")):
        assert registered(fleetctl, config, gitlab, runner["token"], "--name", name).code == 0
    gitlab.set_runner(dead["id"], revoked=True)

    said = fleetctl("verify", "-c", config, "--output", "json")
    assert said.code == 1
    assert {each["name"]: each["state"] for each in said.json} == {"good": "good", "dead": "refused"}
    assert len(entries(config)) == 2

    said = fleetctl("verify", "-c", config, "--delete")
    assert said.code == 0
    assert [each["name"] for each in entries(config)] == ["good"]


def test_verify_deletes_nothing_on_doubt(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    registered(fleetctl, config, gitlab, runner["token"])
    gitlab.outage()
    said = fleetctl("verify", "-c", config, "--delete", "--output", "json")
    assert said.code == 4
    assert said.json[0]["state"] == "unknown"
    assert len(entries(config)) == 1


def test_verify_writes_the_number_and_leaves_the_variable(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    config.write_text(
        f'# mine\n[[runners]]\n  name = "one" # kept\n  url = "{gitlab.url}"\n  token = "$MINE"\n  executor = "shell"\n'
    )
    said = fleetctl("verify", "-c", config, MINE=runner["token"])
    assert said.code == 0, said.err
    text = config.read_text()
    assert f"id = {runner['id']}" in text
    assert '"$MINE"' in text
    assert "# kept" in text
    assert runner["token"] not in text


def test_unregister_removes_this_manager_of_a_glrt_runner_and_its_entry(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    registered(fleetctl, config, gitlab, runner["token"], "--name", "one")
    said = fleetctl("unregister", "-c", config, "--name", "one")
    assert said.code == 0, said.err
    assert entries(config) == []
    [seen] = gitlab.runners()
    assert seen["managers"] == {}


def test_unregister_removes_a_legacy_runner_for_good(fleetctl, config, gitlab) -> None:
    fleetctl("register", "-n", "-c", config, "-u", gitlab.url, "-r", gitlab.registration_token, "--executor", "shell")
    said = fleetctl("unregister", "-c", config, "--all-runners")
    assert said.code == 0, said.err
    assert gitlab.runners() == []
    assert entries(config) == []


def test_unregister_keeps_the_entry_when_gitlab_gives_no_answer(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    registered(fleetctl, config, gitlab, runner["token"], "--name", "one")
    gitlab.outage()
    said = fleetctl("unregister", "-c", config, "--name", "one")
    assert said.code == 4
    assert len(entries(config)) == 1


def test_unregister_wants_to_know_which(fleetctl, config) -> None:
    config.write_text("")
    assert fleetctl("unregister", "-c", config).code == 2


def test_a_new_token_is_saved_and_the_old_one_is_dead(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner(lifetime_s=86400)
    registered(fleetctl, config, gitlab, runner["token"], "--name", "one")
    said = fleetctl("reset-token", "-c", config, "--name", "one")
    assert said.code == 0, said.err
    [entry] = entries(config)
    assert entry["token"] != runner["token"]
    assert entry["token_expires_at"] > entry["token_obtained_at"]
    assert entry["token"] not in said.out + said.err
    assert fleetctl("verify", "-c", config).code == 0


def test_a_persons_token_helps_when_the_runners_own_is_dead(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    registered(fleetctl, config, gitlab, runner["token"], "--name", "one")
    text = config.read_text().replace(runner["token"], "glrt-" + "dead")
    config.write_text(text)
    assert fleetctl("reset-token", "-c", config, "--name", "one").code == 1
    said = fleetctl(
        "reset-token", "-c", config, "--url", gitlab.url, "--id", runner["id"], "--pat", gitlab.private_token
    )
    assert said.code == 0, said.err
    assert fleetctl("verify", "-c", config).code == 0


def test_list_shows_entries_and_no_whole_token(fleetctl, config, gitlab) -> None:
    runner = gitlab.create_runner()
    registered(fleetctl, config, gitlab, runner["token"], "--name", "one")
    said = fleetctl("list", "-c", config)
    assert said.code == 0
    assert "one" in said.out
    assert gitlab.url in said.out
    assert runner["token"] not in said.out
    assert fleetctl("list", "-c", config, "--output", "json").json[0]["executor"] == "shell"
