package client

import "time"

// Token is an access token and what a request to Smokeball needs beside it.
type Token struct {
	AccessToken string
	ID          string
	Scopes      []string
	Expires     time.Time
	APIBaseURL  string
	APIKey      string
}
