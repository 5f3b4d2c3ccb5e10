from hsf_tune.cli.tune import main

if __name__ == "__main__":
    main()
