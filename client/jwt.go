package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// maxJWT is what the broker looks at.
const maxJWT = 16 << 10

// jwtFile has calls carry the token in a file. It implements
// credentials.PerRPCCredentials.
type jwtFile struct {
	path  string
	local bool // The connection is not encrypted, but does not leave the machine.
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (f jwtFile) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	call, _ := credentials.RequestInfoFromContext(ctx)
	token, err := f.token(call.AuthInfo)
	switch {
	case err == nil:
		return map[string]string{"authorization": "Bearer " + token}, nil
	case call.Method == healthpb.Health_Watch_FullMethodName:
		// gRPC itself asks for this, with each connection, and would go on and on while
		// calls wait. They have the error to tell.
		return nil, nil
	default:
		return nil, status.Error(codes.Unauthenticated, "WithJWTFile: "+err.Error())
	}
}

// token returns the token, if it may be sent over this connection.
func (f jwtFile) token(connection credentials.AuthInfo) (string, error) {
	// gRPC sees to this (RequireTransportSecurity), but not for a local connection,
	// which WithDialOptions may have made another one.
	if !f.private(connection) {
		return "", errors.New("the connection is not encrypted, and the token is not sent")
	}
	return f.read()
}

// private says whether nobody on the way can read what is sent.
func (f jwtFile) private(connection credentials.AuthInfo) bool {
	return connection != nil && (f.local && connection.AuthType() == "local" ||
		credentials.CheckSecurityLevel(connection, credentials.PrivacyAndIntegrity) == nil)
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (f jwtFile) RequireTransportSecurity() bool { return !f.local }

// read returns the token. The error tells nothing of what is in the file.
func (f jwtFile) read() (string, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxJWT+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxJWT {
		return "", fmt.Errorf("%s has more than %d bytes, and is no token", f.path, maxJWT)
	}
	token := strings.TrimSpace(string(content))
	switch {
	case token == "":
		return "", fmt.Errorf("%s is empty", f.path)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New(f.path + " has more in it than a token")
	}
	return token, nil
}
