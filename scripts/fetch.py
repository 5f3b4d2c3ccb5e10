from hsf_tune.cli.fetch import main

if __name__ == "__main__":
    main()
