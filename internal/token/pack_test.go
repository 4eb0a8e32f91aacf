package token_test

import (
	"reflect"
	"testing"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/token"
)

func TestPackingATokenChangesNothing(t *testing.T) {
	for _, want := range []token.Token{
		{},
		{ID: "id", AccessToken: secret.New("text"), Issued: issued, Expires: issued, RefreshAt: issued, Replaced: "before"},
		{ID: "id", AccessToken: secret.New("text"), Scopes: []string{"a", "bc"}},
		*token.Token{ID: "id", AccessToken: secret.New("text"), Scopes: []string{"a"}}.Packed(),
	} {
		got := want.Packed()
		if !got.AccessToken.Equal(want.AccessToken) || got.AccessToken.IsZero() != want.AccessToken.IsZero() {
			t.Errorf("the access token of %+v is another", want)
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%+v, want %+v", *got, want)
		}
		if _ = append(got.Scopes, "more"); !got.AccessToken.Equal(want.AccessToken) {
			t.Error("what is added to its scopes is its access token")
		}
	}
}
