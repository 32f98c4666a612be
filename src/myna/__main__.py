from myna.commands import main

main()
