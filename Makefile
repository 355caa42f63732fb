# The two commands of the project, and the ones for people who work on it.
.PHONY: up test check bench crash
up: ; ./dev up $(WITH)
test: ; ./dev test
check: ; ./dev check
bench: ; ./dev bench
crash: ; ./dev crash
