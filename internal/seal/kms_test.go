package seal_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/seal/kmstest"
)

// wrapped makes a keyset file that is encrypted by a service, and has this process use that.
func wrapped(t *testing.T) (*kmstest.AWS, string) {
	t.Helper()
	kms := kmstest.Start(t)
	kms.Use(t)
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := seal.Create(t.Context(), path, kmstest.KeyURI); err != nil {
		t.Fatal(err)
	}
	return kms, path
}

// wantWrapped fails if keys are in the clear in a file.
func wantWrapped(t *testing.T, path string) {
	t.Helper()
	var f struct {
		KMSKeyURI string `json:"kms_key_uri"`
		Aead, Prf map[string]json.RawMessage
	}
	content := contentOf(t, path)
	if err := json.Unmarshal(content, &f); err != nil {
		t.Fatal(err)
	}
	if f.KMSKeyURI != kmstest.KeyURI {
		t.Errorf("the file names the key %q", f.KMSKeyURI)
	}
	for name, part := range map[string]map[string]json.RawMessage{"aead": f.Aead, "prf": f.Prf} {
		if part["encryptedKeyset"] == nil || part["keysetInfo"] == nil || len(part) != 2 {
			t.Errorf("%s is not in Tink's encrypted form: %s", name, part)
		}
	}
	if strings.Contains(string(content), "keyData") {
		t.Errorf("a key is in the clear: %s", content)
	}
}

func TestAKeysetIsWrappedByAKMSThroughoutItsLife(t *testing.T) {
	kms, path := wrapped(t)
	wantPrivate(t, path)
	wantWrapped(t, path)
	first := sealed(t, load(t, path), "first", "name")
	rotate(t, path)
	wantWrapped(t, path)
	k := load(t, path)
	if s := k.Status(); len(s.Keys) != 2 || s.KMSKeyURI != kmstest.KeyURI {
		t.Errorf("after a rotation: %+v", s)
	}
	asked := kms.Asked("Decrypt")
	second := sealed(t, k, "second", "name")
	wantOpen(t, k, first, "name", "first")
	if kms.Asked("Decrypt") != asked || kms.Asked("Encrypt") != 4 {
		t.Errorf("the KMS was asked to seal or open records: %d, %d", kms.Asked("Decrypt")-asked, kms.Asked("Encrypt"))
	}
	// The time of the rotation is not encrypted; here it is long past.
	var f map[string]any
	if err := json.Unmarshal(contentOf(t, path), &f); err != nil {
		t.Fatal(err)
	}
	f["rotation"].(map[string]any)["effective_time"] = "2026-11-24T16:00:00Z"
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, b)
	if removed, err := seal.Prune(t.Context(), path, func(*seal.Keyset) error { return nil }); err != nil || len(removed) != 1 {
		t.Errorf("removed %v, error %v", removed, err)
	}
	wantWrapped(t, path)
	wantOpen(t, load(t, path), second, "name", "second")
	wantUnreadable(t, load(t, path), first, "name")
}

func TestAKeysetInTheClearIsWrappedLater(t *testing.T) {
	kmstest.Start(t).Use(t)
	path := create(t)
	rotate(t, path)
	b := sealed(t, load(t, path), "plaintext", "name")
	if err := seal.Wrap(t.Context(), path, kmstest.KeyURI); err != nil {
		t.Fatal(err)
	}
	wantWrapped(t, path)
	wantPrivate(t, path)
	wantOnly(t, path)
	wantOpen(t, load(t, path), b, "name", "plaintext")
}

// A key that encrypts and does not decrypt would be the end of a keyset.
func TestAKeysetIsNotWrappedWithWhatDoesNotUnwrapIt(t *testing.T) {
	kms := kmstest.Start(t)
	kms.Use(t)
	path := create(t)
	before := contentOf(t, path)
	kms.Answer(`{"KeyId": "x", "CiphertextBlob": "cGxhbnRlZA==", "Plaintext": "cGxhbnRlZA=="}`)
	if err := seal.Wrap(t.Context(), path, kmstest.KeyURI); err == nil || strings.Contains(err.Error(), "planted") {
		t.Errorf("Wrap = %v", err)
	}
	if string(contentOf(t, path)) != string(before) {
		t.Error("the file was changed")
	}
	wantOnly(t, path)
}

func TestAKMSThatFailsIsSaidWithoutWhatItAnswered(t *testing.T) {
	for _, test := range []struct {
		name, says string
		fail       func(*testing.T, *kmstest.AWS)
	}{
		{"refuses", "AWS KMS Decrypt: AccessDeniedException", func(_ *testing.T, kms *kmstest.AWS) { kms.Refuse("AccessDeniedException") }},
		{"refuses oddly", "AWS KMS Decrypt: no credentials, or no answer that can be used", func(_ *testing.T, kms *kmstest.AWS) { kms.Refuse("planted code!") }},
		{"has no key any more", "AWS KMS Decrypt: KMSInvalidStateException", func(_ *testing.T, kms *kmstest.AWS) { kms.Refuse("KMSInvalidStateException") }},
		{"answers no JSON", "AWS KMS Decrypt: no credentials, or no answer", func(_ *testing.T, kms *kmstest.AWS) { kms.Answer(`{"Plaintext": "planted`) }},
		{"answers with another plaintext", `its "aead" part is damaged`, func(_ *testing.T, kms *kmstest.AWS) { kms.Answer(`{"Plaintext": "cGxhbnRlZA=="}`) }},
		{"is not there", "connection refused", func(t *testing.T, _ *kmstest.AWS) { t.Setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1") }},
		{"has no certificate that is known", "certificate", func(t *testing.T, kms *kmstest.AWS) { t.Setenv("AWS_ENDPOINT_URL_KMS", kms.UntrustedURL(t)) }},
		{"is asked by nobody", "AWS ec2imds GetMetadata: no credentials", func(t *testing.T, _ *kmstest.AWS) { t.Setenv("AWS_ACCESS_KEY_ID", "") }},
		{"has settings that cannot be read", "settings for AWS", func(t *testing.T, _ *kmstest.AWS) { t.Setenv("AWS_PROFILE", "planted") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			kms, path := wrapped(t)
			test.fail(t, kms)
			begin := time.Now()
			k, err := seal.Load(t.Context(), path)
			if k != nil || err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), path) {
				t.Fatalf("Load = %v, %v, want %q", k, err, test.says)
			}
			for _, foreign := range []string{"planted", "cGxhbnRlZA", "arn:", "AKID"} {
				if strings.Contains(err.Error(), foreign) {
					t.Errorf("the error has %q in it: %v", foreign, err)
				}
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			before := contentOf(t, path)
			if _, err := seal.Rotate(t.Context(), path, 0); err == nil || string(contentOf(t, path)) != string(before) {
				t.Errorf("Rotate = %v", err)
			}
		})
	}
}

func TestAKMSThatDoesNotAnswerIsWaitedForInBounds(t *testing.T) {
	kms, path := wrapped(t)
	kms.Silence()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := seal.Load(ctx, path); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 3*time.Second {
		t.Errorf("Load in a hurry = %v after %v", err, time.Since(begin))
	}
	begin = time.Now()
	var refused *seal.KMSError
	if _, err := seal.Load(t.Context(), path); !errors.As(err, &refused) || refused.Reason != "no answer within 10s" {
		t.Errorf("Load = %v", err)
	}
	if took := time.Since(begin); took < 9*time.Second || took > 14*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestAKMSKeyIsNamedByItsURI(t *testing.T) {
	dir := t.TempDir()
	for _, uri := range []string{
		"planted", "aws-kms://", "aws-kms://alias/planted", "aws-kms://arn:aws:s3:eu-west-2:123456789012:key/planted",
		"aws-kms://arn:aws:kms:eu-west-2:123456789012:key/planted?x=y", "gcp-kms://projects/planted", "hcvault://planted/transit/keys/x",
		"AWS-KMS://arn:aws:kms:eu-west-2:123456789012:key/planted",
	} {
		path := filepath.Join(dir, "keyset.json")
		if err := seal.Create(t.Context(), path, uri); err == nil || !strings.Contains(err.Error(), "aws-kms://arn:aws:kms:REGION") || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: Create = %v", uri, err)
		}
		if _, err := seal.Load(t.Context(), path); err == nil {
			t.Errorf("%s: a file was written", uri)
		}
	}
}
