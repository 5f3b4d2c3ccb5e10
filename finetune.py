from hsf_tune.cli.finetune import main

if __name__ == "__main__":
    main()
