"""`python -m griffin.cli`, as `torchrun -m griffin.cli train RECIPE` starts it."""

from griffin.cli import main

if __name__ == "__main__":
    main(prog_name="griffin")
