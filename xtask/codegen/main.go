// Command codegen describes upstream's published types to Clipper: a table of their structure, and test vectors that say
// what upstream's own code answers. It is run by `cargo xtask codegen` and by nothing else.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: codegen OUTPUT_TABLE OUTPUT_VECTORS_DIRECTORY")
		os.Exit(2)
	}
	writeTable(os.Args[1])
	writeVectors(os.Args[2])
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
