"""`python -m mbrl_env TARGET`: serves an environment by its name."""

from mbrl_env import main

main()
