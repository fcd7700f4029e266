package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

// Modules of Knative 1.23 and where in them the definitions of kinds are.
var knativeServing = map[string][]string{
	"knative.dev/serving@v0.50.0":                               {"config/core/300-resources/*.yaml"},
	"knative.dev/networking@v0.0.0-20260727162500-c7a7b772cac9": {"config/*.yaml"},
	"knative.dev/caching@v0.0.0-20260727161800-0edbf88bc267":    {"config/image.yaml"},
}

// Eventing's kinds that Clipper has loops for.
var knativeEventing = map[string][]string{
	"knative.dev/eventing@v0.50.0": {
		"config/core/resources/broker.yaml", "config/core/resources/trigger.yaml", "config/core/resources/channel.yaml",
		"config/core/resources/subscription.yaml", "config/core/resources/pingsource.yaml",
		"config/core/resources/apiserversource.yaml", "config/core/resources/containersource.yaml",
		"config/core/resources/sinkbindings.yaml", "config/core/resources/eventtype.yaml",
		"config/core/resources/sequence.yaml", "config/core/resources/parallel.yaml",
		"config/channels/in-memory-channel/resources/*.yaml",
	},
}

// writeDefinitions writes the custom resource definitions of some modules: their structure, and nothing for people to read.
func writeDefinitions(path string, modules map[string][]string) {
	found := map[string]json.RawMessage{}
	for module, globs := range modules {
		out, err := exec.Command("go", "mod", "download", "-json", module).Output()
		must(err)
		var info struct{ Dir string }
		must(json.Unmarshal(out, &info))
		for _, glob := range globs {
			files, err := filepath.Glob(filepath.Join(info.Dir, glob))
			must(err)
			for _, file := range files {
				text, err := os.ReadFile(file)
				must(err)
				var object map[string]any
				must(yaml.Unmarshal(text, &object))
				if object["kind"] != "CustomResourceDefinition" {
					continue
				}
				spec := object["spec"].(map[string]any)
				for _, version := range spec["versions"].([]any) {
					undescribe(version.(map[string]any)["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any))
				}
				metadata := object["metadata"].(map[string]any)
				labels, _ := metadata["labels"].(map[string]any)
				kept := map[string]any{}
				for key, value := range labels {
					// The rest says which release was installed.
					switch {
					case strings.HasPrefix(key, "duck.knative.dev/"), key == "knative.dev/crd-install",
						key == "messaging.knative.dev/subscribable", key == "eventing.knative.dev/source":
						kept[key] = value
					}
				}
				annotations := map[string]any{}
				if given, ok := metadata["annotations"].(map[string]any); ok && given["registry.knative.dev/eventTypes"] != nil {
					annotations["registry.knative.dev/eventTypes"] = given["registry.knative.dev/eventTypes"]
				}
				// Nothing that is served here needs a webhook to be converted: versions that differ from the stored one are left out.
				delete(spec, "conversion")
				spec["versions"] = slices.DeleteFunc(spec["versions"].([]any), func(version any) bool {
					return metadata["name"] == "eventtypes.eventing.knative.dev" && version.(map[string]any)["name"] == "v1beta3"
				})
				name := metadata["name"].(string)
				line, err := json.Marshal(map[string]any{"name": name, "labels": kept, "annotations": annotations, "spec": spec})
				must(err)
				found[name] = line
			}
		}
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	var lines []string
	for _, name := range names {
		lines = append(lines, string(found[name]))
	}
	packed(path, lines)
	fmt.Printf("%s: %d kinds\n", filepath.Base(path), len(lines))
}

// undescribe removes what is for people to read from a schema.
func undescribe(schema map[string]any) {
	delete(schema, "description")
	for _, field := range []string{"items", "additionalProperties", "not"} {
		if inner, ok := schema[field].(map[string]any); ok {
			undescribe(inner)
		}
	}
	for _, field := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := schema[field].([]any)
		for _, inner := range list {
			undescribe(inner.(map[string]any))
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for _, inner := range properties {
		undescribe(inner.(map[string]any))
	}
}
