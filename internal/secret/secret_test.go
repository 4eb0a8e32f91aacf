package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"smokeball.internal/tokenbroker/internal/secret"
)

const planted = "s3cr3t-planted"

type exported struct{ Secret secret.Text }
type unexported struct{ secret secret.Text }

func TestTextIsNeverPrinted(t *testing.T) {
	text := secret.New(planted)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		for _, value := range []any{text, &text, exported{text}, &exported{text}, unexported{text}, &unexported{text},
			[]secret.Text{text}, map[string]secret.Text{"k": text}, []any{unexported{text}}} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
	}
	fmt.Fprintln(&out, text, exported{text}, unexported{text})
	fmt.Fprintln(&out, fmt.Errorf("wrapped: %w", errors.New(fmt.Sprint(text))))
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "secret", text, "in", exported{text}, "hidden", unexported{text})
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"a": text, "b": exported{text}}); err != nil {
		t.Fatal(err)
	}
	if err := template.Must(template.New("").Parse("{{.}} {{.Secret}}")).Execute(&out, exported{text}); err != nil {
		t.Fatal(err)
	}
	printed := out.String()
	for _, form := range []string{planted, fmt.Sprintf("%x", planted), fmt.Sprintf("%X", planted), fmt.Sprint([]byte(planted))} {
		if strings.Contains(printed, form) {
			t.Errorf("printed %q:\n%s", form, printed)
		}
	}
	if !strings.Contains(printed, "[redacted]") {
		t.Errorf("nothing redacted in:\n%s", printed)
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
