"""Secrets, and what a payload says of policies; secrets need a server each, so tests of their own show them."""

from __future__ import annotations

from tests.acceptance.pipelines.case import Case, Job, case

SECRETS = "tests/acceptance/test_secrets.py::test_"
POLICY = {"execution_policy_job": True, "policy_name": "Scan all"}


def secret(name: str, title: str, proof: str) -> Case:
    return case(f"secret-{name}", "1.20", title, proof=proof if "::" in proof else SECRETS + proof)


CASES: tuple[Case, ...] = (
    secret("vault", "a secret of HashiCorp Vault is a masked file and overrides the job's variable",
           "a_secret_is_a_masked_file_and_overrides_the_jobs_variable"),
    secret("engines", "engines kv-v2, kv-v1 and generic are read",
           "tests/contract/secrets/test_vault.py::test_every_engine_gives_a_field"),
    secret("gitlab", "secrets of GitLab's own manager are read with a login in each request",
           "gitlabs_own_secrets_manager"),
    secret("aws", "secrets of AWS Secrets Manager are read as the runner's host",
           "a_secret_of_aws_comes_by_the_plugin"),
    secret("aws-role", "or with a role that the job's token opens",
           "tests/contract/secrets/test_aws.py::test_the_token_goes_to_sts_unsigned_and_only_there"),
    secret("gcp", "secrets of Google Cloud are read by workload identity federation",
           "tests/contract/secrets/test_gcp.py::test_the_jobs_token_is_exchanged_and_opens_the_secret"),
    secret("azure", "secrets of an Azure Key Vault are read with the job's token as assertion",
           "tests/contract/secrets/test_azure.py::test_the_jobs_token_is_the_assertion_that_opens_the_vault"),
    secret("failed", "a secret that cannot be had fails the job: misconfigured, or a dependency that is away",
           "a_secret_that_cannot_be_had_fails_the_job_with_its_reason"),
    secret("missing", "FF_SECRET_RESOLVING_FAILS_IF_MISSING=false lets the job go on without it",
           "a_missing_secret_is_warned_of_where_the_flag_is_off"),
    secret("attempts", "SECRETS_RETRIEVAL_ATTEMPTS says how often to try",
           "attempts_are_made_as_often_as_the_job_says"),
    case("policy-job", "3", "a job of a pipeline execution policy says so", Job(
        more={"policy_options": POLICY}, has=['Job triggered by policy "Scan all".'])),
    case("policy-variables", "3", "and whether a person's variables count in it", Job(
        more={"policy_options": POLICY | {
            "policy_variables_override_allowed": False, "policy_variables_override_exceptions": ["ONE"]}},
        has=["User-defined CI/CD variables are ignored in this job (except for ONE)"])),
)  # fmt: skip
