package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"

	admission "k8s.io/api/admission/v1"
	apidiscovery "k8s.io/api/apidiscovery/v2"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

// A row is one type of the table, with its fields in the order of their protobuf numbers.
type row struct {
	model, goName, shape string
	atomic               bool
	fields               []field
}

type field struct {
	number                                          int
	name, kind, flags, goType, patch, list, mapType string
	defaults                                        string
}

type tableBuilder struct {
	definitions map[string]common.OpenAPIDefinition
	index       map[reflect.Type]int
	rows        []*row
}

// Shapes of types whose JSON is not that of a struct. Every type with a decoder of its own must be named here.
var shapes = map[string]string{
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                                         "quantity",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                                             "time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                                        "microtime",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                                         "duration",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                                         "raw",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                                       "intorstring",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                                          "raw",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":                         "raw",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray":       "orarray",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool":        "orbool",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "orstrings",
}

// Types with a decoder of their own that reads what the ordinary one would read too.
var plainDecoders = map[string]bool{
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaProps": true,
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

func fullName(t reflect.Type) string { return t.PkgPath() + "." + t.Name() }

func modelName(t reflect.Type) string {
	if named, ok := reflect.New(t).Interface().(interface{ OpenAPIModelName() string }); ok {
		return named.OpenAPIModelName()
	}
	parts := strings.SplitN(t.PkgPath(), "/", 2)
	host := strings.Split(parts[0], ".")
	for i, j := 0, len(host)-1; i < j; i, j = i+1, j-1 {
		host[i], host[j] = host[j], host[i]
	}
	return strings.Join(host, ".") + "." + strings.ReplaceAll(parts[1], "/", ".") + "." + t.Name()
}

func indirect(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// kind names what one value is: a scalar, or `m` and the index of its type.
func (b *tableBuilder) kind(t reflect.Type) string {
	t = indirect(t)
	if isBytes(t) {
		return "b"
	}
	switch t.Kind() {
	case reflect.String:
		return "s"
	case reflect.Bool:
		return "o"
	case reflect.Int32:
		return "i"
	case reflect.Int64, reflect.Int:
		return "l"
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "u"
	case reflect.Float64:
		return "d"
	case reflect.Interface:
		return "a"
	case reflect.Struct, reflect.Slice:
		return fmt.Sprintf("m%d", b.visit(t))
	}
	panic("no kind for " + t.String())
}

func (b *tableBuilder) visit(t reflect.Type) int {
	if index, ok := b.index[t]; ok {
		return index
	}
	index := len(b.rows)
	b.index[t] = index
	r := &row{model: modelName(t), goName: t.String(), shape: "struct"}
	b.rows = append(b.rows, r)
	if t.Kind() == reflect.Slice {
		r.shape = "list"
		r.fields = []field{{number: 1, name: "items", kind: b.kind(t.Elem()), flags: "r", goType: indirect(t.Elem()).String()}}
		return index
	}
	if shape, ok := shapes[fullName(t)]; ok {
		r.shape = shape
	} else if reflect.PointerTo(t).Implements(unmarshaler) && !plainDecoders[fullName(t)] && !embedsDecoder(t) {
		panic("a decoder of its own: " + fullName(t))
	}
	if strings.HasPrefix(r.shape, "or") || r.shape == "struct" {
		definition := b.definitions[r.model]
		r.atomic = definition.Schema.Extensions["x-kubernetes-map-type"] == "atomic"
		for i := 0; i < t.NumField(); i++ {
			if f, ok := b.field(t.Field(i), &definition.Schema); ok {
				r.fields = append(r.fields, f)
			}
		}
		sort.SliceStable(r.fields, func(i, j int) bool { return r.fields[i].number < r.fields[j].number })
	}
	return index
}

// embedsDecoder: the decoder comes from an embedded type and is not the type's own. No published type does that.
func embedsDecoder(reflect.Type) bool { return false }

func (b *tableBuilder) field(f reflect.StructField, schema *spec.Schema) (field, bool) {
	jsonTag := strings.Split(f.Tag.Get("json"), ",")
	protoTag := strings.Split(f.Tag.Get("protobuf"), ",")
	if jsonTag[0] == "-" || !f.IsExported() {
		return field{}, false
	}
	x := field{name: jsonTag[0]}
	if len(protoTag) > 1 {
		fmt.Sscan(protoTag[1], &x.number)
	}
	inline := f.Anonymous && x.name == ""
	for _, option := range jsonTag[1:] {
		switch option {
		case "omitempty":
			x.flags += "e"
		case "omitzero":
			x.flags += "z"
		case "inline":
			inline = true
		}
	}
	if inline {
		x.flags += "i"
	} else if x.name == "" {
		x.name = f.Name
	}
	t := f.Type
	if t.Kind() == reflect.Pointer {
		x.flags += "p"
		t = t.Elem()
	}
	x.goType = t.String()
	repeated := t.Kind() == reflect.Slice && !isBytes(t) && (t.Name() == "" || len(protoTag) > 2 && protoTag[2] == "rep")
	switch {
	case repeated:
		x.flags += "r"
		x.kind = b.kind(t.Elem())
	case t.Kind() == reflect.Map:
		x.flags += "m"
		value := t.Elem()
		if value.Kind() == reflect.Slice && !isBytes(value) && value.Name() == "" {
			x.flags += "r"
			value = value.Elem()
		}
		x.kind = b.kind(value)
	default:
		x.kind = b.kind(t)
	}
	if strategy := f.Tag.Get("patchStrategy"); strategy != "" {
		x.patch = strategy + ":" + f.Tag.Get("patchMergeKey")
	}
	b.describe(&x, schema)
	return x, true
}

// describe adds what only the API description says.
func (b *tableBuilder) describe(x *field, schema *spec.Schema) {
	for _, name := range schema.Required {
		if name == x.name {
			x.flags += "q"
		}
	}
	property, ok := schema.Properties[x.name]
	if !ok {
		return
	}
	if list, ok := property.Extensions["x-kubernetes-list-type"].(string); ok {
		x.list = list
		if keys, ok := property.Extensions["x-kubernetes-list-map-keys"].([]any); ok {
			var names []string
			for _, key := range keys {
				names = append(names, key.(string))
			}
			x.list += ":" + strings.Join(names, ",")
		}
	}
	if mapType, ok := property.Extensions["x-kubernetes-map-type"].(string); ok {
		x.mapType = mapType
	}
	if property.Default != nil {
		text, err := json.Marshal(property.Default)
		must(err)
		if string(text) != "{}" {
			x.defaults = string(text)
		}
	}
}

// Kinds that every group version has: they are looked up without their group.
var everywhere = map[string]bool{
	"WatchEvent": true, "ListOptions": true, "GetOptions": true, "DeleteOptions": true, "CreateOptions": true,
	"UpdateOptions": true, "PatchOptions": true,
}

func writeTable(path string) {
	s := scheme.Scheme
	must(apiextensions.AddToScheme(s))
	must(apiregistration.AddToScheme(s))
	must(admission.AddToScheme(s))
	must(apidiscovery.AddToScheme(s))
	must(metav1.AddMetaToScheme(s))
	b := &tableBuilder{
		definitions: openapi.GetOpenAPIDefinitions(func(path string) spec.Ref { return spec.MustCreateRef(path) }),
		index:       map[reflect.Type]int{},
	}
	var kinds []string
	types := s.AllKnownTypes()
	names := make([]string, 0, len(types))
	byName := map[string]reflect.Type{}
	for gvk, t := range types {
		if gvk.Version == "__internal" || everywhere[gvk.Kind] && (gvk.Group != "" || gvk.Version != "v1") {
			continue
		}
		name := gvk.Group + "\t" + gvk.Version + "\t" + gvk.Kind
		names = append(names, name)
		byName[name] = t
	}
	sort.Strings(names)
	for _, name := range names {
		kinds = append(kinds, fmt.Sprintf("K\t%s\t%d\n", name, b.visit(byName[name])))
	}
	var text bytes.Buffer
	for _, r := range b.rows {
		atomic := ""
		if r.atomic {
			atomic = "a"
		}
		fmt.Fprintf(&text, "T\t%s\t%s\t%s\t%s\n", r.model, r.goName, r.shape, atomic)
		for _, f := range r.fields {
			line := fmt.Sprintf("F\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", f.number, f.name, f.kind, f.flags, f.goType, f.patch, f.list, f.mapType, f.defaults)
			text.WriteString(strings.TrimRight(line, "\t") + "\n")
		}
	}
	for _, line := range kinds {
		text.WriteString(line)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	must(err)
	_, err = w.Write(text.Bytes())
	must(err)
	must(w.Close())
	must(os.WriteFile(path, packed.Bytes(), 0o644))
	fmt.Printf("%d types, %d kinds, %d bytes of text, %d packed\n", len(b.rows), len(kinds), text.Len(), packed.Len())
}
