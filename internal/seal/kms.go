package seal

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	"github.com/tink-crypto/tink-go-awskms/v3/integration/awskms"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// How long the KMS may take for a keyset file. It is asked when a process starts
// and when the file has changed, never when something is sealed or opened.
const kmsTimeout = 10 * time.Second

const awsScheme = "aws-kms://"

// awsKeyURI is how Tink names a key, by its ARN, which has the region in it.
var awsKeyURI = regexp.MustCompile(`^aws-kms://arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[a-zA-Z0-9/_-]+$`)

// kmsKey is a key in a key management service. It remembers why it was refused,
// since Tink passes errors on as text.
type kmsKey struct {
	key     tink.AEADWithContext
	refused error
}

// newKMSKey returns the key that a URI names; nil if it is empty. It asks nobody
// yet.
func newKMSKey(ctx context.Context, uri string) (*kmsKey, error) {
	switch {
	case uri == "":
		return nil, nil
	case !awsKeyURI.MatchString(uri):
		return nil, errors.New("the URI of its KMS key is not of the form aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID, or alias/NAME in place of key/ID")
	}
	arn := strings.TrimPrefix(uri, awsScheme)
	// Who asks, and how, are settings of the AWS SDK. Its own log would go to
	// standard error, between our records.
	settings, err := config.LoadDefaultConfig(ctx, config.WithRegion(strings.Split(arn, ":")[3]), config.WithLogger(logging.Nop{}))
	if err != nil {
		return nil, errors.New("the settings for AWS (environment, ~/.aws) cannot be used")
	}
	key, err := awskms.NewAEADWithContext(ctx, arn, awskms.WithKMS(kms.NewFromConfig(settings)))
	if err != nil {
		return nil, err
	}
	return &kmsKey{key: key}, nil
}

// read reads a keyset that is encrypted with k, or in the clear if k is nil.
func (k *kmsKey) read(ctx context.Context, r keyset.Reader) (*keyset.Handle, error) {
	if k == nil {
		return insecurecleartextkeyset.Read(r)
	}
	handle, err := keyset.ReadWithContext(ctx, r, k, nil)
	if k.refused != nil {
		err = k.refused
	}
	return handle, err
}

// write writes a keyset, encrypted with k, or in the clear if k is nil.
func (k *kmsKey) write(ctx context.Context, handle *keyset.Handle, w keyset.Writer) error {
	if k == nil {
		return insecurecleartextkeyset.Write(handle, w)
	}
	err := handle.WriteWithContext(ctx, w, k, nil)
	if k.refused != nil {
		err = k.refused
	}
	return err
}

// EncryptWithContext implements tink.AEADWithContext.
func (k *kmsKey) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	out, err := k.key.EncryptWithContext(ctx, plaintext, associatedData)
	k.refused = reduceKMS(err)
	return out, k.refused
}

// DecryptWithContext implements tink.AEADWithContext.
func (k *kmsKey) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	out, err := k.key.DecryptWithContext(ctx, ciphertext, associatedData)
	k.refused = reduceKMS(err)
	return out, k.refused
}

// KMSError says why a KMS did not encrypt or decrypt a keyset.
type KMSError struct {
	// Operation is the service and what it was asked for, such as "KMS Decrypt". To
	// get credentials others may be asked before.
	Operation string
	// Reason is the code that it answered, or what is wrong with the way to it.
	Reason string
	cause  error // a context's, or nil
}

// Error says both.
func (e *KMSError) Error() string { return e.Operation + ": " + e.Reason }

// Unwrap returns context.DeadlineExceeded or context.Canceled, or nil.
func (e *KMSError) Unwrap() error { return e.cause }

// errorCode is the form of the codes that AWS answers.
var errorCode = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9.]{0,99}$`)

// reduceKMS leaves of an error what is known to be harmless: the rest can quote
// what was answered, and that is a keyset in the clear.
func reduceKMS(err error) error {
	if err == nil {
		return nil
	}
	reduced := &KMSError{Operation: "AWS", Reason: "no credentials, or no answer that can be used"}
	var operation *smithy.OperationError
	for inner := err; errors.As(inner, &operation); inner = operation.Err {
		reduced.Operation = "AWS " + operation.Service() + " " + operation.Operation()
	}
	var answer smithy.APIError
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		reduced.Reason, reduced.cause = fmt.Sprintf("no answer within %v", kmsTimeout), context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		reduced.Reason, reduced.cause = "interrupted", context.Canceled
	case errors.As(err, &answer) && errorCode.MatchString(answer.ErrorCode()):
		reduced.Reason = answer.ErrorCode()
	case errors.As(err, &certificate):
		reduced.Reason = certificate.Error()
	case errors.As(err, &network):
		reduced.Reason = network.Error()
	}
	return reduced
}
