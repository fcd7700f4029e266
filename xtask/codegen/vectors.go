package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
)

func writeVectors(directory string) {
	must(os.MkdirAll(directory, 0o755))
	packed(filepath.Join(directory, "protobuf.gz"), protobufVectors())
	packed(filepath.Join(directory, "strategic.gz"), patchVectors())
	packed(filepath.Join(directory, "apply.gz"), applyVectors())
}

// packed writes lines in a form that is the same at each run.
func packed(path string, lines []string) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	must(err)
	_, err = w.Write([]byte(strings.Join(lines, "\n") + "\n"))
	must(err)
	must(w.Close())
	must(os.WriteFile(path, out.Bytes(), 0o644))
	fmt.Printf("%s: %d lines, %d bytes\n", filepath.Base(path), len(lines), out.Len())
}

// protobufVectors fills one object of each kind at random and says what Go makes of it: JSON, a tab, protobuf in base64.
func protobufVectors() []string {
	s := scheme.Scheme
	toJSON := kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, s, s, kjson.SerializerOptions{})
	toProtobuf := protobuf.NewSerializer(s, s)
	var lines []string
	types := s.AllKnownTypes()
	var names []string
	byName := map[string]runtime.Object{}
	for gvk := range types {
		if gvk.Version == "__internal" || everywhere[gvk.Kind] || strings.HasSuffix(gvk.Kind, "List") && gvk.Kind != "PodList" {
			continue
		}
		object, err := s.New(gvk)
		must(err)
		if _, ok := object.(interface{ Marshal() ([]byte, error) }); !ok {
			continue
		}
		name := gvk.String()
		names = append(names, name)
		filler := &filler{random: rand.New(rand.NewSource(int64(len(name))))}
		filler.fill(reflect.ValueOf(object).Elem(), 0)
		object.GetObjectKind().SetGroupVersionKind(gvk)
		byName[name] = object
	}
	sort.Strings(names)
	for _, name := range names {
		object := byName[name]
		var asJSON, asProtobuf bytes.Buffer
		must(toJSON.Encode(object, &asJSON))
		must(toProtobuf.Encode(object, &asProtobuf))
		lines = append(lines, strings.TrimSpace(asJSON.String())+"\t"+base64.StdEncoding.EncodeToString(asProtobuf.Bytes()))
	}
	return lines
}

type filler struct{ random *rand.Rand }

var words = []string{"", "a", "web", "x-1", "ü", "two words"}

const fillDepthMax = 9

// fill sets some of the fields, the deeper the fewer.
func (f *filler) fill(v reflect.Value, depth int) {
	if f.fillSpecial(v, depth) {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(words[f.random.Intn(len(words))])
	case reflect.Bool:
		v.SetBool(f.random.Intn(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{0, 1, -1, 300, 1 << 30}[f.random.Intn(5)])
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.random.Intn(200)))
	case reflect.Float64:
		v.SetFloat([]float64{0, 1, -2.5, 1e3}[f.random.Intn(4)])
	case reflect.Pointer:
		if f.some(depth) {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		if isBytes(v.Type()) {
			v.SetBytes([]byte(words[f.random.Intn(len(words))]))
			return
		}
		// An empty list that is not nil does not survive protobuf.
		count := f.random.Intn(3)
		if count == 0 || !f.some(depth) {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), count, count))
		for i := 0; i < count; i++ {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		if !f.some(depth) {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for _, key := range []string{"b", "a/c"} {
			value := reflect.New(v.Type().Elem()).Elem()
			f.fill(value, depth+1)
			if value.Kind() == reflect.Slice && value.Len() == 0 && !isBytes(value.Type()) {
				// A nil list in a map does not survive protobuf.
				value.Set(reflect.MakeSlice(value.Type(), 1, 1))
			}
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), value)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			if v.Type().Field(i).IsExported() {
				f.fill(v.Field(i), depth+1)
			}
		}
	}
}

func (f *filler) some(depth int) bool {
	return depth < fillDepthMax && f.random.Intn(fillDepthMax) > depth-2
}

func (f *filler) fillSpecial(v reflect.Value, depth int) bool {
	if !v.CanAddr() {
		return false
	}
	switch x := v.Addr().Interface().(type) {
	case *metav1.TypeMeta, *runtime.TypeMeta:
	case *resource.Quantity:
		*x = resource.MustParse([]string{"0", "500m", "1Gi", "1e3", "-5"}[f.random.Intn(5)])
	case *metav1.Time:
		*x = metav1.NewTime(time.Date(2026, 11, f.random.Intn(28)+1, 1, 2, 3, 0, time.UTC))
	case *metav1.MicroTime:
		*x = metav1.NewMicroTime(time.Date(2026, 11, f.random.Intn(28)+1, 1, 2, 3, 456000, time.UTC))
	case *metav1.Duration:
		x.Duration = time.Duration(f.random.Intn(1000000)) * time.Millisecond
	case *intstr.IntOrString:
		*x = []intstr.IntOrString{intstr.FromInt32(0), intstr.FromInt32(-7), intstr.FromString("http")}[f.random.Intn(3)]
	case *metav1.FieldsV1:
		x.Raw = []byte(`{"f:metadata":{"f:labels":{".":{},"f:a":{}}}}`)
	case *runtime.RawExtension:
		x.Raw = []byte(`{"apiVersion":"v1","kind":"X","list":[1,"a",null,1.5]}`)
	case *apiextensions.JSON:
		x.Raw = []byte([]string{`"text"`, `5`, `{"a":[true]}`}[f.random.Intn(3)])
	case *apiextensions.JSONSchemaPropsOrArray:
		if f.random.Intn(2) == 0 {
			x.JSONSchemas = []apiextensions.JSONSchemaProps{{Type: "string"}, {Type: "integer"}}
		} else {
			x.Schema = &apiextensions.JSONSchemaProps{Type: "object"}
		}
	case *apiextensions.JSONSchemaPropsOrBool:
		x.Allows = f.random.Intn(2) == 0
		if f.random.Intn(2) == 0 {
			x.Allows, x.Schema = true, &apiextensions.JSONSchemaProps{Type: "boolean"}
		}
	case *apiextensions.JSONSchemaPropsOrStringArray:
		if f.random.Intn(2) == 0 {
			x.Property = []string{"a", "b"}
		} else {
			x.Schema = &apiextensions.JSONSchemaProps{Type: "number"}
		}
	default:
		return false
	}
	return true
}

// line writes a vector as JSON.
func line(vector any) string {
	text, err := json.Marshal(vector)
	must(err)
	return string(text)
}

// patchVectors applies strategic merge patches with upstream's code: kind, live object, patch, and the result or error.
func patchVectors() []string {
	type vector struct {
		Kind   string `json:"kind"`
		Live   any    `json:"live"`
		Patch  any    `json:"patch"`
		Result any    `json:"result,omitempty"`
		Error  string `json:"error,omitempty"`
	}
	pod := `{"metadata":{"finalizers":["a","b","c"],"labels":{"x":"1","y":"2"}},"spec":{"containers":[
		{"name":"a","image":"1","ports":[{"containerPort":80,"protocol":"TCP"},{"containerPort":81}],"env":[{"name":"E","value":"1"},{"name":"F","value":"2"}],"args":["x","y"]},
		{"name":"b","image":"2"},{"name":"c","image":"3"}],"nodeSelector":{"k":"v","l":"w"},
		"volumes":[{"name":"v","emptyDir":{}},{"name":"w","secret":{"secretName":"s"}}],"tolerations":[{"key":"a"}]}}`
	deployment := `{"spec":{"replicas":1,"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}},"template":{"spec":{"containers":[{"name":"a","image":"1"}]}}}}`
	cases := [][3]string{
		{"Pod", pod, `{"metadata":{"labels":{"x":null,"z":"3"}}}`},
		{"Pod", pod, `{"metadata":{"labels":{"n":null}}}`},
		{"Pod", pod, `{"metadata":{"annotations":{"n":null,"m":"1"}}}`},
		{"Pod", pod, `{"metadata":{"finalizers":["d","b"]}}`},
		{"Pod", pod, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["a","c"]}}`},
		{"Pod", pod, `{"metadata":{"$setElementOrder/finalizers":["d","c","b"],"finalizers":["d"]}}`},
		{"Pod", pod, `{"metadata":{"$setElementOrder/finalizers":["c","b","a"]}}`},
		{"Pod", pod, `{"spec":{"containers":[{"name":"b","image":"9"},{"name":"n","image":"new"}]}}`},
		{"Pod", pod, `{"spec":{"containers":[{"name":"b","$patch":"delete"}]}}`},
		{"Pod", pod, `{"spec":{"containers":[{"$patch":"replace"},{"name":"only","image":"x"}]}}`},
		{"Pod", pod, `{"spec":{"$setElementOrder/containers":[{"name":"c"},{"name":"n"},{"name":"a"}],"containers":[{"name":"n","image":"new"},{"name":"a","image":"7"}]}}`},
		{"Pod", pod, `{"spec":{"$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"name":"b","image":"7"},{"name":"a","image":"8"}]}}`},
		{"Pod", pod, `{"spec":{"containers":[{"name":"a","ports":[{"containerPort":80,"hostPort":8080},{"containerPort":82}],"env":[{"name":"E","$patch":"delete"},{"name":"G","value":"3"}],"args":["z"]}]}}`},
		{"Pod", pod, `{"spec":{"containers":[{"image":"nokey"}]}}`},
		{"Pod", pod, `{"spec":{"containers":[{"name":"a","$patch":"wat"}]}}`},
		{"Pod", pod, `{"spec":{"$patch":"wat"}}`},
		{"Pod", pod, `{"spec":{"$patch":"replace","nodeName":"n"}}`},
		{"Pod", pod, `{"spec":{"nodeSelector":{"$patch":"delete"}}}`},
		{"Pod", pod, `{"spec":{"nodeSelector":{"$patch":"replace","q":"r"}}}`},
		{"Pod", pod, `{"spec":{"nodeSelector":null,"volumes":[{"name":"v","emptyDir":null,"hostPath":{"path":"/x"}}]}}`},
		{"Pod", pod, `{"spec":{"volumes":[{"$retainKeys":["name","hostPath"],"name":"v","hostPath":{"path":"/x"}}]}}`},
		{"Pod", pod, `{"spec":{"volumes":[{"$retainKeys":["name"],"name":"v","hostPath":{"path":"/x"}}]}}`},
		{"Pod", pod, `{"spec":{"volumes":[{"$retainKeys":"name","name":"v"}]}}`},
		{"Pod", pod, `{"spec":{"tolerations":[{"key":"b"}]}}`},
		{"Pod", pod, `{"spec":{"tolerations":[]}}`},
		{"Pod", pod, `{"spec":{"securityContext":{"runAsUser":null,"fsGroup":5,"sysctls":[{"name":"a","$patch":"delete"},{"name":"b"}]}}}`},
		{"Pod", pod, `{"spec":{"unknown":{"a":1}}}`},
		{"Pod", pod, `{"spec":{"containers":"x"}}`},
		{"Pod", pod, `{"spec":{"$setElementOrder/containers":"x"}}`},
		{"Pod", pod, `{"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":"x"}}`},
		{"Pod", pod, `{"spec":{"$deleteFromPrimitiveList":["x"]}}`},
		{"Pod", pod, `{"metadata":{"finalizers":["a",1]}}`},
		{"Pod", pod, `{"metadata":{"finalizers":[["a"]]}}`},
		{"Deployment", deployment, `{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}`},
		{"Deployment", deployment, `{"spec":{"strategy":{"$retainKeys":["type"],"rollingUpdate":null,"type":"Recreate"}}}`},
		{"Deployment", deployment, `{"spec":{"replicas":3,"template":{"spec":{"containers":[{"name":"a","image":"2"}]}}}}`},
	}
	var lines []string
	for _, c := range cases {
		v := vector{Kind: c[0]}
		gvk := corev1.SchemeGroupVersion.WithKind(c[0])
		if c[0] == "Deployment" {
			gvk = appsv1.SchemeGroupVersion.WithKind(c[0])
		}
		object, err := scheme.Scheme.New(gvk)
		must(err)
		live, patch := map[string]any{}, map[string]any{}
		must(utiljson.Unmarshal([]byte(c[1]), &live))
		must(utiljson.Unmarshal([]byte(c[2]), &patch))
		v.Live, v.Patch = runtime.DeepCopyJSONValue(live), runtime.DeepCopyJSONValue(patch)
		result, err := strategicpatch.StrategicMergeMapPatch(live, patch, object)
		if err != nil {
			v.Error = err.Error()
		} else {
			v.Result = result
		}
		lines = append(lines, line(v))
	}
	return lines
}
