"""`python -m lit_gnncompress`: the same as `lit-gnncompress`."""

from lit_gnncompress.command import main

if __name__ == "__main__":
    main()
