from hsf_tune.cli.record_grid import main

if __name__ == "__main__":
    main()
