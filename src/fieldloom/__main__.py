from fieldloom.cli import main

main()
