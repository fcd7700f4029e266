package main

import (
	"encoding/json"
	"fmt"
	"math/rand"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/generated/openapi"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Objects stay what they are: one version, no defaults.
type sameObject struct{}

func (sameObject) Convert(in, out, context any) error { return fmt.Errorf("not needed") }
func (sameObject) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}
func (sameObject) ConvertFieldLabel(schema.GroupVersionKind, string, string) (string, string, error) {
	return "", "", fmt.Errorf("not needed")
}
func (sameObject) Default(runtime.Object) {}
func (sameObject) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(gvk)
	return u, nil
}

type applyStep struct {
	Apply       bool   `json:"apply"`
	Manager     string `json:"manager"`
	Subresource string `json:"subresource,omitempty"`
	Force       bool   `json:"force,omitempty"`
	Object      any    `json:"object"`
	Result      any    `json:"result,omitempty"`
	Error       string `json:"error,omitempty"`
	Causes      any    `json:"causes,omitempty"`
}

type applySequence struct {
	Group   string      `json:"group"`
	Version string      `json:"version"`
	Kind    string      `json:"kind"`
	Schema  any         `json:"schema,omitempty"`
	Steps   []applyStep `json:"steps"`
}

const metadataModel = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

func publishedModels() map[string]*spec.Schema {
	models := map[string]*spec.Schema{}
	for name, definition := range openapi.GetOpenAPIDefinitions(func(name string) spec.Ref {
		return spec.MustCreateRef("#/components/schemas/" + name)
	}) {
		model := definition.Schema
		models[name] = &model
	}
	return models
}

func withKind(model *spec.Schema, gvk schema.GroupVersionKind) *spec.Schema {
	named := *model
	named.Extensions = spec.Extensions{}
	for key, value := range model.Extensions {
		named.Extensions[key] = value
	}
	named.Extensions["x-kubernetes-group-version-kind"] = []any{
		map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind},
	}
	return &named
}

// run plays the steps through upstream's field manager.
func (s *applySequence) run(models map[string]*spec.Schema) {
	gvk := schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}
	own := map[string]*spec.Schema{}
	for name, model := range models {
		own[name] = model
	}
	if s.Schema != nil {
		text, err := json.Marshal(s.Schema)
		must(err)
		model := &spec.Schema{}
		must(json.Unmarshal(text, model))
		model.Properties["apiVersion"] = *spec.StringProperty()
		model.Properties["kind"] = *spec.StringProperty()
		model.Properties["metadata"] = *spec.RefSchema("#/components/schemas/" + metadataModel)
		own["custom"] = withKind(model, gvk)
	} else {
		name := map[string]string{"": "core", "apps": "apps"}[s.Group]
		name = fmt.Sprintf("io.k8s.api.%s.%s.%s", name, s.Version, s.Kind)
		own[name] = withKind(models[name], gvk)
	}
	converter, err := managedfields.NewTypeConverter(own, false)
	must(err)
	managers := map[string]*managedfields.FieldManager{}
	manager := func(subresource string) *managedfields.FieldManager {
		if managers[subresource] == nil {
			reset := fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
			if subresource == "status" {
				reset = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"))
			}
			filters := map[fieldpath.APIVersion]fieldpath.Filter{
				fieldpath.APIVersion(gvk.GroupVersion().String()): fieldpath.NewExcludeSetFilter(reset),
			}
			made, err := managedfields.NewDefaultFieldManager(converter, sameObject{}, sameObject{}, sameObject{}, gvk, gvk.GroupVersion(), subresource, filters)
			must(err)
			managers[subresource] = made
		}
		return managers[subresource]
	}
	live, err := sameObject{}.New(gvk)
	must(err)
	for i := range s.Steps {
		step := &s.Steps[i]
		text, err := json.Marshal(step.Object)
		must(err)
		object := &unstructured.Unstructured{Object: map[string]any{}}
		must(utiljson.Unmarshal(text, &object.Object))
		object.SetGroupVersionKind(gvk)
		step.Object = runtime.DeepCopyJSONValue(object.Object)
		var result runtime.Object
		if step.Apply {
			result, err = manager(step.Subresource).Apply(live.DeepCopyObject(), object, step.Manager, step.Force)
		} else {
			result, err = manager(step.Subresource).Update(live.DeepCopyObject(), object, step.Manager)
		}
		if err != nil {
			step.Error = err.Error()
			if status, ok := err.(apierrors.APIStatus); ok && status.Status().Details != nil {
				step.Causes = status.Status().Details.Causes
			}
			continue
		}
		u := result.(*unstructured.Unstructured)
		u.SetUID("u")
		step.Result = runtime.DeepCopyJSONValue(u.Object)
		live = u
	}
}

func parse(text string) map[string]any {
	value := map[string]any{}
	must(json.Unmarshal([]byte(text), &value))
	return value
}

// Parts that configurations of a deployment are made of.
var deploymentParts = []string{
	`{"metadata":{"name":"d","labels":{"a":"1"}}}`,
	`{"metadata":{"name":"d","labels":{"a":"2","b":"1"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"d\",\"labels\":{\"a\":\"2\"}},\"spec\":{\"replicas\":3}}"}}}`,
	`{"metadata":{"name":"d"},"spec":{"replicas":3}}`,
	`{"metadata":{"name":"d"},"spec":{"replicas":5,"selector":{"matchLabels":{"app":"x"}}}}`,
	`{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"app":"y"}},"strategy":{"type":"Recreate"}}}`,
	`{"metadata":{"name":"d","finalizers":["f/a","f/b"]},"spec":{"template":{"spec":{"containers":[{"name":"c1","image":"i1","ports":[{"containerPort":80}]}]}}}}`,
	`{"metadata":{"name":"d","finalizers":["f/b"]},"spec":{"template":{"spec":{"containers":[{"name":"c1","image":"i2","args":["x"],"env":[{"name":"A","value":"1"},{"name":"B","value":"2"}]},{"name":"c2","image":"j"}]}}}}`,
	`{"metadata":{"name":"d"},"spec":{"template":{"spec":{"containers":[{"name":"c2","resources":{"limits":{"cpu":"1"}},"ports":[{"containerPort":80,"protocol":"UDP"},{"containerPort":80,"protocol":"TCP","name":"h"}]},{"name":"c0","image":"k"}]}}}}`,
	`{"metadata":{"name":"d"},"spec":{"template":{"metadata":{"labels":{"app":"x"}},"spec":{"nodeSelector":{"n":"1"},"volumes":[{"name":"v","emptyDir":{}}],"tolerations":[{"key":"t"}],"securityContext":{}}}}}`,
	`{"metadata":{"name":"d","ownerReferences":[{"apiVersion":"v1","kind":"X","name":"x","uid":"1"}]},"spec":{"paused":true,"template":{"spec":{"containers":[]}}}}`,
	`{"metadata":{"name":"d"},"spec":{"template":{"spec":{"containers":[{"name":"c1","image":"i1"},{"name":"c1","image":"i3"}]}}}}`,
	`{"metadata":{"name":"d"},"spec":{"unknown":1}}`,
	`{"metadata":{"name":"d"},"status":{"replicas":2,"conditions":[{"type":"Available","status":"True"}]}}`,
	`{"metadata":{"name":"d"},"spec":{"template":null}}`,
}

const customSchema = `{"type":"object","properties":{"spec":{"type":"object","properties":{
	"n":{"type":"integer"},"s":{"type":"string"},"any":{"x-kubernetes-preserve-unknown-fields":true,"type":"object"},
	"set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
	"list":{"type":"array","items":{"type":"object","properties":{"a":{"type":"string"}}}},
	"map":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k","d"],"items":{"type":"object","properties":{"k":{"type":"string"},"d":{"type":"string","default":"dd"},"v":{"type":"integer"}}}},
	"free":{"type":"object","additionalProperties":{"type":"string"}},
	"whole":{"type":"object","x-kubernetes-map-type":"atomic","properties":{"a":{"type":"string"},"b":{"type":"string"}}},
	"ios":{"x-kubernetes-int-or-string":true}}},
	"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}`

var customParts = []string{
	`{"metadata":{"name":"c"},"spec":{"n":1,"s":"a"}}`,
	`{"metadata":{"name":"c"},"spec":{"n":2,"any":{"x":{"y":1},"z":[1,2]}}}`,
	`{"metadata":{"name":"c"},"spec":{"any":{"x":{"w":1},"z":[3]},"ios":5}}`,
	`{"metadata":{"name":"c"},"spec":{"set":["a","b"],"list":[{"a":"1"}]}}`,
	`{"metadata":{"name":"c"},"spec":{"set":["b","c"],"list":[{"a":"2"},{"a":"3"}],"ios":"x"}}`,
	`{"metadata":{"name":"c"},"spec":{"map":[{"k":"1","v":1},{"k":"2","d":"e","v":2}],"free":{"a":"1"}}}`,
	`{"metadata":{"name":"c"},"spec":{"map":[{"k":"2","d":"e","v":3},{"k":"1","d":"dd","v":1},{"k":"3"}],"free":{"a":"2","b":"1"}}}`,
	`{"metadata":{"name":"c"},"spec":{"whole":{"a":"1"}}}`,
	`{"metadata":{"name":"c"},"spec":{"whole":{"b":"2"},"s":"b"}}`,
	`{"metadata":{"name":"c"},"status":{"phase":"x"}}`,
	`{"metadata":{"name":"c"},"spec":{"s":5}}`,
	`{"metadata":{"name":"c"},"spec":{"set":["a","a"]}}`,
	`{"metadata":{"name":"c"},"spec":{"map":[{"v":1}]}}`,
	`{"metadata":{"name":"c"},"spec":{"nope":1}}`,
}

// merged puts parts over each other, so that later steps share fields with earlier ones.
func merged(parts ...map[string]any) map[string]any {
	out := map[string]any{}
	for _, part := range parts {
		for key, value := range part {
			inner, isMap := value.(map[string]any)
			before, wasMap := out[key].(map[string]any)
			if isMap && wasMap {
				out[key] = merged(before, inner)
			} else {
				out[key] = value
			}
		}
	}
	return out
}

func applyVectors() []string {
	models := publishedModels()
	random := rand.New(rand.NewSource(1))
	var lines []string
	for i := 0; i < 60; i++ {
		s := applySequence{Group: "apps", Version: "v1", Kind: "Deployment"}
		parts := deploymentParts
		if i%2 == 1 {
			s = applySequence{Group: "example.com", Version: "v1", Kind: "Custom", Schema: parse(customSchema)}
			parts = customParts
		}
		for j := 0; j < 9; j++ {
			step := applyStep{
				Apply:   random.Intn(10) < 7,
				Manager: []string{"a", "b", "kubectl"}[random.Intn(3)],
				Force:   random.Intn(4) == 0,
			}
			if random.Intn(8) == 0 {
				step.Subresource = "status"
			}
			var chosen []map[string]any
			for k := 0; k <= random.Intn(3); k++ {
				chosen = append(chosen, parse(parts[random.Intn(len(parts))]))
			}
			step.Object = merged(chosen...)
			if !step.Apply {
				object := step.Object.(map[string]any)
				object["metadata"].(map[string]any)["uid"] = "u"
			}
			s.Steps = append(s.Steps, step)
		}
		s.run(models)
		lines = append(lines, line(s))
	}
	many := applySequence{Group: "", Version: "v1", Kind: "ConfigMap"}
	for i := 0; i < 13; i++ {
		object := parse(fmt.Sprintf(`{"metadata":{"name":"c","uid":"u"},"data":{"k%d":"v"}}`, i))
		data := object["data"].(map[string]any)
		for j := 0; j < i; j++ {
			data[fmt.Sprintf("k%d", j)] = "v"
		}
		many.Steps = append(many.Steps, applyStep{Manager: fmt.Sprintf("m%02d", i), Object: object})
	}
	many.run(models)
	return append(lines, line(many))
}
