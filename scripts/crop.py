from hsf_tune.cli.crop import main

if __name__ == "__main__":
    main()
