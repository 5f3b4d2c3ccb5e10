from hsf_tune.cli.replay import main

if __name__ == "__main__":
    main()
