"""The configuration: one TOML file, GitLab Runner's own words and ours, as frozen values.

What it is for: `loading.load(path, env)` reads the file into `settings.Settings`, or says what is wrong with file,
line, key and what to do. `changes` compares two of them, `writing` saves what the manager itself must change (tokens,
entries), `showing` prints them, `reference` draws their page in the documents.

Rule: nothing here raises at a wrong file, no secret gets into a message, and the environment is read in `environment`
alone. What it leaves to others: acting on any of it.
"""
