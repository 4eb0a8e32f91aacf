package simulator

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// awsRegions says where a region's user pool would live; it only shows in the iss claim.
var awsRegions = map[string]string{"us": "us-east-1", "au": "ap-southeast-2", "uk": "eu-west-2"}

// mint makes an access token in the shape of a JWT signed with RS256. The signature is random: no key exists that could
// verify it, so the token is worth nothing anywhere. The claims are those of a Cognito machine-to-machine access token:
// no username, no aud, and the client is its own subject. Those in instead, a JSON object, take their places.
func (s *Simulator) mint(c *Client, scope string, now time.Time, instead json.RawMessage) (string, error) {
	region, environment, _ := strings.Cut(c.Endpoint, "/")
	if known, ok := awsRegions[region]; ok {
		region = known
	}
	claims := map[string]any{
		"sub":       c.ID,
		"client_id": c.ID,
		"token_use": "access",
		"scope":     scope,
		"iss":       fmt.Sprintf("https://cognito-idp.%s.amazonaws.com/%s_Simulated%s", region, region, environment),
		"iat":       now.Unix(),
		"auth_time": now.Unix(),
		"exp":       now.Unix() + c.lifetime(),
		"jti":       newUUID(),
		"version":   2,
	}
	if len(instead) > 0 {
		if err := json.Unmarshal(instead, &claims); err != nil {
			return "", fmt.Errorf("reading claims: %w", err)
		}
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding the token's claims: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"kid":"`+s.keyID+`","alg":"RS256"}`)) + "." + encode(body) + "." + randomText(256), nil
}

// randomText returns n random bytes in base64url.
func randomText(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the process first
	return base64.RawURLEncoding.EncodeToString(b)
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	return asUUID(b)
}

// asUUID writes b as a UUID of version 4.
func asUUID(b [16]byte) string {
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
