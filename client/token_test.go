package client_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/client"
)

type carrier struct {
	T client.Token
	P *client.Token
}

func TestTokenShowsNoSecret(t *testing.T) {
	t.Parallel()
	token := client.Token{
		AccessToken: "hidden-access", APIKey: "hidden-key", ID: id(7), APIBaseURL: "https://api.example",
		Expires: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	shown := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown[verb] = fmt.Sprintf(verb, token)
		shown[verb+" of a pointer"] = fmt.Sprintf(verb, &token)
		shown[verb+" in a struct"] = fmt.Sprintf(verb, struct{ T client.Token }{token})
	}
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog's text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog's JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("got", "value", token, "pointer", &token, "inside", []any{token, struct{ T client.Token }{token}})
		shown[name] = b.String()
	}
	for name, marshal := range map[string]func(any) ([]byte, error){"JSON": json.Marshal, "XML": xml.Marshal} {
		b, err := marshal(carrier{token, &token})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		shown[name] = string(b)
	}
	for name, s := range shown {
		if strings.Contains(strings.ToLower(s), "hidden") || strings.Contains(s, fmt.Sprintf("%x", "hidden")) {
			t.Errorf("%s shows a secret: %s", name, s)
		}
		if !strings.Contains(s, id(7)) {
			t.Errorf("%s does not name the token: %s", name, s)
		}
	}
}

func TestSourceShowsNoSecret(t *testing.T) {
	inBubble(t, time.Hour, func(t *testing.T, h *house) {
		h.want(t, 1)
		for _, verb := range []string{"%v", "%+v", "%#v"} {
			for _, v := range []any{h.acme, h.client} {
				if s := fmt.Sprintf(verb, v); strings.Contains(s, access(1)) || strings.Contains(s, "key-of") {
					t.Errorf("%s of %T shows a secret: %s", verb, v, s)
				}
			}
		}
	})
}
