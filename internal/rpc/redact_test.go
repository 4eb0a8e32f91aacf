package rpc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// secretNames is what a field with a secret in it is called.
var secretNames = regexp.MustCompile(`secret|token|key|password|credential|assertion`)

// harmless are fields that only sound like it.
var harmless = []string{
	"Token.token_type", "Token.token_id", "TenantStatus.token_id", "RefreshTokenRequest.rejected_token_id",
	"ListTenantsRequest.page_token", "ListTenantsResponse.next_page_token", "CheckTenantResponse.token_endpoint",
}

// Tools that honour debug_redact keep these out of what they print; Go's own do not, see TestNoMessageIsFormatted.
func TestFieldsWithSecretsAreMarked(t *testing.T) {
	marked := map[string]bool{}
	seen := map[string]bool{}
	var walk func(protoreflect.MessageDescriptors)
	walk = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			if messages.Get(i).IsMapEntry() {
				continue
			}
			fields := messages.Get(i).Fields()
			for j := range fields.Len() {
				f := fields.Get(j)
				if f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind {
					continue
				}
				name := string(f.Parent().Name()) + "." + string(f.Name())
				options, _ := f.Options().(*descriptorpb.FieldOptions)
				seen[name] = true
				marked[name] = options.GetDebugRedact()
				sounds := secretNames.MatchString(string(f.Name())) && !slices.Contains(harmless, name)
				if sounds != marked[name] {
					t.Errorf("%s sounds like a secret: %v; is marked debug_redact: %v", name, sounds, marked[name])
				}
			}
			walk(messages.Get(i).Messages())
		}
	}
	walk(pb.File_tokenbroker_v1_token_service_proto.Messages())
	walk(pb.File_tokenbroker_v1_tenant_service_proto.Messages())
	for _, name := range []string{"Token.access_token", "Token.api_key", "Tenant.client_secret", "Tenant.api_key", "RotateClientSecretRequest.client_secret"} {
		if !marked[name] {
			t.Errorf("%s is not marked debug_redact", name)
		}
	}
	for _, name := range harmless {
		if !seen[name] {
			t.Errorf("%s is an exception and does not exist", name)
		}
	}
}

// TestNoMessageIsFormatted reads the program: a message of the API goes nowhere as an any, which is how it would get
// into a log or an error, and nobody asks for its text. Go's protobuf prints marked fields like all others.
func TestNoMessageIsFormatted(t *testing.T) {
	if text := prototext.Format(&pb.Token{AccessToken: "marked"}); !strings.Contains(text, "marked") {
		t.Errorf("prototext honours debug_redact now, %q: this test may be more than is needed", text)
	}
	const example = `package example
import (
	"fmt"
	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)
type call struct{ req *pb.GetTokenRequest }
func bad(m *pb.Tenant, l []*pb.Tenant, c call, e pb.Region) (string, error) {
	_ = fmt.Sprint(e, len(l), m.GetName(), c.req.GetTenant()) // none of these
	_ = fmt.Sprint("a", m)
	_ = fmt.Sprint(l)
	_ = fmt.Sprint(&c)
	_ = m.GetStatus().String()
	return fmt.Sprint(map[string]*pb.Tenant{}), fmt.Errorf("%v", m)
}`
	p := loadProgram(t)
	if found := p.formatted(t, "example", map[string]any{"example.go": example}); len(found) != 6 {
		t.Errorf("of an example with six, %d are found: %q", len(found), found)
	}
	checked := map[string]bool{}
	for _, own := range p.packages {
		if own.Module == nil || !own.Module.Main || strings.Contains(own.ImportPath, "/gen/") {
			continue
		}
		files := map[string]any{}
		for _, name := range own.GoFiles {
			files[filepath.Join(own.Dir, name)] = nil
		}
		for _, where := range p.formatted(t, own.ImportPath, files) {
			t.Errorf("%s: a message of the API is formatted, or passed on as an any", where)
		}
		checked[own.ImportPath[strings.LastIndex(own.ImportPath, "/")+1:]] = true
	}
	if !checked["rpc"] || !checked["broker"] || !checked["tokenbroker"] {
		t.Errorf("only %v were read", checked)
	}
}

// program is what the binary is built from, as the compiler sees it.
type program struct {
	packages []listed
	exports  map[string]string // :: import path → file of its exported types
}

type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Module                  *struct{ Main bool }
}

func loadProgram(t *testing.T) *program {
	t.Helper()
	// Built like the binary that other tests run, so that it is built once.
	list := exec.Command("go", "list", "-export", "-trimpath", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Module", "./cmd/...")
	list.Dir, list.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	var problem bytes.Buffer
	list.Stderr = &problem
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, problem.String())
	}
	p := &program{exports: map[string]string{}}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := decoder.Decode(&l); errors.Is(err, io.EOF) {
			return p
		} else if err != nil {
			t.Fatal(err)
		}
		p.packages = append(p.packages, l)
		p.exports[l.ImportPath] = l.Export
	}
}

// formatted returns where in the files of a package (name → source; nil: it is read) a message is formatted.
func (p *program) formatted(t *testing.T, path string, sources map[string]any) (found []string) {
	t.Helper()
	set := token.NewFileSet()
	var files []*ast.File
	for name, source := range sources {
		f, err := parser.ParseFile(set, name, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Importer: importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(p.exports[path]) })}
	if _, err := config.Check(path, set, files, info); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for node := range ast.Preorder(f) {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				continue
			}
			if called, ok := call.Fun.(*ast.SelectorExpr); ok && called.Sel.Name == "String" && hasMessage(info.TypeOf(called.X), nil) {
				found = append(found, set.Position(call.Pos()).String())
			}
			signature, ok := info.TypeOf(call.Fun).(*types.Signature)
			for i, argument := range call.Args {
				if ok && takesAny(signature, i) && hasMessage(info.TypeOf(argument), nil) {
					found = append(found, set.Position(argument.Pos()).String())
				}
			}
		}
	}
	return found
}

// takesAny says whether parameter n is an any.
func takesAny(s *types.Signature, n int) bool {
	last := s.Params().Len() - 1
	if last < 0 {
		return false
	}
	parameter := s.Params().At(min(n, last)).Type()
	if list, ok := parameter.(*types.Slice); ok && s.Variadic() && n >= last {
		parameter = list.Elem()
	}
	empty, ok := parameter.Underlying().(*types.Interface)
	return ok && empty.Empty()
}

// hasMessage says whether a value of the type would be printed with a message of the API in it.
func hasMessage(t types.Type, seen []types.Type) bool {
	if t == nil || slices.Contains(seen, t) {
		return false
	}
	seen = append(seen, t)
	switch u := types.Unalias(t).(type) {
	case *types.Named:
		if pkg := u.Obj().Pkg(); pkg != nil && strings.HasSuffix(pkg.Path(), "/gen/tokenbroker/v1") {
			message, _, _ := types.LookupFieldOrMethod(types.NewPointer(u), false, pkg, "ProtoReflect")
			return message != nil
		}
		return hasMessage(u.Underlying(), seen)
	case *types.Struct:
		for f := range u.Fields() {
			if hasMessage(f.Type(), seen) {
				return true
			}
		}
	case *types.Map:
		return hasMessage(u.Key(), seen) || hasMessage(u.Elem(), seen)
	case interface{ Elem() types.Type }:
		return hasMessage(u.Elem(), seen)
	}
	return false
}
