// Package kmstest imitates the one corner of a key management service that
// keysets are encrypted with, over HTTP and for the real client.
package kmstest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// KeyURI names a key that the service has.
const KeyURI = "aws-kms://" + keyID

const keyID = "arn:aws:kms:eu-west-2:123456789012:key/0b8a9c1d-1111-2222-3333-444455556666"

// AWS is a service with one key, which encrypts and decrypts as the JSON protocol
// of AWS KMS has it.
type AWS struct {
	server *httptest.Server
	seal   cipher.AEAD
	gone   chan struct{} // closed when the test ends

	mu       sync.Mutex
	asked    map[string]int // by operation
	refusal  string
	silent   bool
	answered string // in place of every answer
}

// Start starts a service, which ends with the test.
func Start(t testing.TB) *AWS {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // Never fails, see crypto/rand.
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a := &AWS{gone: make(chan struct{}), asked: map[string]int{}}
	if a.seal, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		t.Fatal(err)
	}
	a.server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(func() { close(a.gone); a.server.Close() })
	return a
}

// Env returns the environment of a process that is to use the service: where it
// is, and who asks. Nothing else of the machine's settings for AWS is used.
func (a *AWS) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL_KMS=" + a.server.URL,
		"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=planted-aws-secret", "AWS_SESSION_TOKEN=",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
	}
}

// Use has this process use the service until the test ends.
func (a *AWS) Use(t testing.TB) {
	t.Helper()
	for _, variable := range a.Env() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
}

// UntrustedURL returns where the service is with a certificate that nobody trusts.
func (a *AWS) UntrustedURL(t testing.TB) string {
	server := httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// Refuse has the service answer this code from now on; empty: it serves again.
func (a *AWS) Refuse(code string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refusal = code
}

// Silence has the service answer nothing from now on.
func (a *AWS) Silence() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent = true
}

// Answer has the service answer this from now on, whatever it is asked.
func (a *AWS) Answer(body string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answered = body
}

// Asked returns how often the service was asked for an operation, "Encrypt" or
// "Decrypt".
func (a *AWS) Asked(operation string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[operation]
}

// signed is how a request says who asks, and for which region.
var signed = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/\d{8}/eu-west-2/kms/aws4_request,`)

func (a *AWS) serve(w http.ResponseWriter, r *http.Request) {
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	a.mu.Lock()
	a.asked[operation]++
	refusal, silent, answered := a.refusal, a.silent, a.answered
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	var asked struct {
		KeyID                     string `json:"KeyId"`
		Plaintext, CiphertextBlob []byte
		EncryptionContext         map[string]string
	}
	body := json.NewDecoder(r.Body).Decode(&asked)
	switch {
	case silent:
		select {
		case <-r.Context().Done():
		case <-a.gone:
		}
	case answered != "":
		_, _ = fmt.Fprint(w, answered)
	case refusal != "":
		refuse(w, refusal)
	case !signed.MatchString(r.Header.Get("Authorization")):
		refuse(w, "UnrecognizedClientException")
	case body != nil:
		refuse(w, "SerializationException")
	case asked.KeyID != keyID:
		refuse(w, "NotFoundException")
	case len(asked.EncryptionContext) > 0:
		refuse(w, "ValidationException") // None is expected.
	case operation == "Encrypt":
		answer(w, map[string]any{"KeyId": keyID, "CiphertextBlob": a.seal.Seal(nil, nil, asked.Plaintext, nil)})
	case operation == "Decrypt":
		plaintext, err := a.seal.Open(nil, nil, asked.CiphertextBlob, nil)
		if err != nil {
			refuse(w, "InvalidCiphertextException")
			return
		}
		answer(w, map[string]any{"KeyId": keyID, "Plaintext": plaintext})
	default:
		refuse(w, "UnknownOperationException")
	}
}

// refuse answers as the service does: with a code, and a message that can say
// anything.
func refuse(w http.ResponseWriter, code string) {
	w.WriteHeader(http.StatusBadRequest)
	answer(w, map[string]string{"__type": code, "message": "planted-message: User: arn:aws:iam::123456789012:user/someone"})
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
