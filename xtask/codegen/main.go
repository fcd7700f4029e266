// Command codegen describes upstream's published types to Clipper: a table of their structure, and test vectors that say
// what upstream's own code answers. It is run by `cargo xtask codegen` and by nothing else.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: codegen OUTPUT_TABLE OUTPUT_VECTORS_DIRECTORY OUTPUT_KNATIVE_DIRECTORY")
		os.Exit(2)
	}
	writeTable(os.Args[1])
	writeVectors(os.Args[2])
	writeDefinitions(filepath.Join(os.Args[3], "serving/definitions.gz"), knativeServing)
	writeDefinitions(filepath.Join(os.Args[3], "eventing/definitions.gz"), knativeEventing)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
