"""`python -m c2s_rl`: the command line without the installed script, as Ray jobs start it."""

from c2s_rl.cli import main

if __name__ == "__main__":
    main()
