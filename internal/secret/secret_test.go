package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"gopkg.in/yaml.v3"

	"smokeball.internal/tokenbroker/internal/secret"
)

const planted = "s3cr3t-planted"

type (
	exported   struct{ Secret secret.Text }
	unexported struct{ secret secret.Text }
	pointing   struct{ Secret *secret.Text }
	embedding  struct{ secret.Text }
	deep       struct {
		Inner exported
		inner *unexported
		list  []exported
		Named map[string]pointing
	}
	failing struct{ secret secret.Text } // an error that prints what it is made of
)

func (f failing) Error() string {
	return fmt.Sprintf("failed with %v and %+v", f.secret, unexported(f))
}

// forms are all that a text can be in.
func forms(text secret.Text) []any {
	in := unexported{text}
	d := deep{exported{text}, &in, []exported{{text}}, map[string]pointing{"k": {&text}}}
	return []any{
		text, &text, exported{text}, &exported{text}, in, &in, pointing{&text}, &pointing{&text}, embedding{text}, &embedding{text}, d, &d,
		[]secret.Text{text}, [1]secret.Text{text}, []*secret.Text{&text}, []any{in, []any{d}}, map[string]secret.Text{"k": text},
		map[secret.Text]secret.Text{text: text}, map[exported]*deep{{text}: &d}, func() secret.Text { return text }, failing{text},
	}
}

// wantRedacted fails if what was printed shows the text in any form, or says nothing in its place.
func wantRedacted(t *testing.T, printed string) {
	t.Helper()
	wantHidden(t, printed)
	if !strings.Contains(printed, "[redacted]") {
		t.Errorf("nothing redacted in:\n%s", printed)
	}
}

func wantHidden(t *testing.T, printed string) {
	t.Helper()
	for _, form := range []string{
		planted, fmt.Sprintf("%x", planted), fmt.Sprintf("%X", planted), fmt.Sprintf("% x", planted), fmt.Sprint([]byte(planted)),
		fmt.Sprintf("%#v", []byte(planted)), fmt.Sprintf("%U", []rune(planted)), base64.StdEncoding.EncodeToString([]byte(planted)),
	} {
		if strings.Contains(printed, form) {
			t.Errorf("printed %q:\n%s", form, printed)
		}
	}
}

func TestTextIsNotPrintedByAnyVerb(t *testing.T) {
	for _, flags := range []string{"", "+", "#", "-", " ", "0", "+#", "40", "-40", ".3", "40.3"} {
		for _, verb := range "vTtbcdoOqxXUeEfFgGspw!" {
			var out strings.Builder
			for _, value := range forms(secret.New(planted)) {
				fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", value)
			}
			if strings.ContainsRune("Tpw", verb) { // The type, an address, and what Errorf alone knows.
				wantHidden(t, out.String())
			} else {
				wantRedacted(t, out.String())
			}
		}
	}
	var out strings.Builder
	for _, value := range forms(secret.New(planted)) {
		fmt.Fprint(&out, value)
		fmt.Fprintln(&out, value)
	}
	wantRedacted(t, out.String())
}

func TestTextIsNotLogged(t *testing.T) {
	var out bytes.Buffer
	options := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, options), slog.NewJSONHandler(&out, options)} {
		for _, value := range forms(secret.New(planted)) {
			out.Reset()
			log := slog.New(h)
			log.With("a", value).WithGroup("g").With("b", value).Info("m", "c", value, slog.Group("d", "e", value, slog.Group("f", slog.Any("h", value))))
			log.Error("m", "error", fmt.Errorf("wrapped: %w: %v", failing{secret.New(planted)}, value))
			log.Info("m", slog.Any("list", []slog.Attr{slog.Any("i", value)}), slog.Any("text", secret.New(planted)))
			wantRedacted(t, out.String())
		}
	}
}

func TestTextIsNotEncoded(t *testing.T) {
	text := secret.New(planted)
	d := struct {
		exported
		Deep  deep
		Named map[secret.Text]secret.Text
	}{exported{text}, deep{Inner: exported{text}, Named: map[string]pointing{"k": {&text}}}, map[secret.Text]secret.Text{text: text}}
	asJSON, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	wantRedacted(t, string(asJSON))
	asXML, err := xml.Marshal(struct {
		XMLName   xml.Name    `xml:"x"`
		Attribute secret.Text `xml:"attribute,attr"`
		Data      secret.Text `xml:",chardata"`
		Element   exported
	}{Attribute: text, Data: text, Element: exported{text}})
	if err != nil {
		t.Fatal(err)
	}
	wantRedacted(t, string(asXML))
	asYAML, err := yaml.Marshal(map[string]any{"text": text, "in": exported{text}, "list": []*secret.Text{&text}})
	if err != nil {
		t.Fatal(err)
	}
	wantRedacted(t, string(asYAML))
	if err := gob.NewEncoder(io.Discard).Encode(exported{text}); err == nil {
		t.Error("encoding/gob takes a text")
	}
}

func TestTextIsNotPutIntoTemplates(t *testing.T) {
	const source = `{{.}} {{.Secret}} {{printf "%s %v %q %x" .Secret .Secret .Secret .}} {{print .Secret | len}} {{html .Secret}} {{js .Secret}} {{urlquery .Secret}}`
	var out bytes.Buffer
	if err := template.Must(template.New("").Parse(source)).Execute(&out, exported{secret.New(planted)}); err != nil {
		t.Fatal(err)
	}
	wantRedacted(t, out.String())
	out.Reset()
	page := htmltemplate.Must(htmltemplate.New("").Parse(`<a href="?{{.Secret}}" title="{{.Secret}}" onclick="f({{.Secret}})">{{.}}</a><script>{{.Secret}}</script>`))
	if err := page.Execute(&out, exported{secret.New(planted)}); err != nil {
		t.Fatal(err)
	}
	wantRedacted(t, out.String())
}

func TestErrorsDoNotShowAText(t *testing.T) {
	err := failing{secret.New(planted)}
	for _, err := range []error{
		fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", err)),
		fmt.Errorf("outer: %w and %#v", err, unexported(err)),
		errors.Join(err, err),
	} {
		wantRedacted(t, err.Error())
		wantHidden(t, fmt.Sprintf("%v %+v %#v %q %x", err, err, err, err, err))
	}
}

// TestPanicDoesNotShowAText has this test panic in a process of its own.
func TestPanicDoesNotShowAText(t *testing.T) {
	const variable = "SECRET_TEST_PANIC"
	values := forms(secret.New(planted))
	if which, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		panic(values[which])
	}
	for n, value := range values {
		panicking := exec.Command(os.Args[0], "-test.run=^TestPanicDoesNotShowAText$")
		panicking.Env = append(os.Environ(), variable+"="+strconv.Itoa(n), "GOTRACEBACK=system")
		out, err := panicking.CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("panic: ")) {
			t.Fatalf("with a %T, it ends with %v:\n%s", value, err, out)
		}
		wantHidden(t, string(out))
		if n == 0 { // Of what is around it, an address.
			wantRedacted(t, string(out))
		}
	}
}

// Not all handlers print with fmt.
func TestTextStaysHiddenWhereItsMethodsAreAsked(t *testing.T) {
	text := secret.New(planted)
	if got := text.String(); got != "[redacted]" {
		t.Errorf("String() = %q", got)
	}
	if got := slog.AnyValue(text).Resolve().Any(); got != "[redacted]" {
		t.Errorf("LogValue() = %v", got)
	}
}

func TestTextKeepsItsString(t *testing.T) {
	if got := secret.New(planted).Reveal(); got != planted {
		t.Errorf("Reveal() = %q", got)
	}
	var zero secret.Text
	if !zero.IsZero() || !secret.New("").IsZero() || zero.Reveal() != "" || secret.New("a").IsZero() {
		t.Error("the zero Text is not the empty one")
	}
	if !secret.New("a").Equal(secret.New("a")) || secret.New("a").Equal(secret.New("b")) || zero.Equal(secret.New("a")) {
		t.Error("Equal is wrong")
	}
}
