package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"smokeball.internal/tokenbroker/internal/secret"
)

// Redis is the settings that say where the registry is and what it is sealed
// with: the server's, and those of the verbs that read and write it directly.
type Redis struct {
	RedisURL                  string `name:"redis-url" default:"redis://127.0.0.1:6379" placeholder:"URL" help:"redis://[user[:password]@]host[:port][/db], redis+sentinel://[user[:password]@]host[:port][,host[:port]...]/master-name[/db], or redis+cluster://[user[:password]@]host[:port][,host[:port]...]; rediss, rediss+sentinel, rediss+cluster for TLS. See docs/redis.md. Default ${default}."`
	RedisPasswordFile         string `name:"redis-password-file" placeholder:"FILE" help:"File with the Redis password, in place of one in the URL."`
	RedisSentinelPasswordFile string `name:"redis-sentinel-password-file" placeholder:"FILE" help:"File with the sentinels' password, in place of sentinel_password in the URL."`
	RedisPrefix               string `name:"redis-prefix" default:"tokenbroker:" placeholder:"PREFIX" help:"Begins every Redis key. Default ${default}"`
	KeysetFile                string `name:"keyset-file" required:"" placeholder:"FILE" help:"Keyset that seals what is stored, made by \"tokenbroker keyset new\". All replicas have the same. Required."`
}

// Validate refuses a prefix that would part what belongs together in a cluster.
// Kong calls it.
func (c *Redis) Validate() error {
	if strings.ContainsAny(c.RedisPrefix, "{}") {
		return errors.New("--redis-prefix must not have braces in it")
	}
	return nil
}

// RedisPassword returns the password of the file; empty if there is no file.
func (c *Redis) RedisPassword() (secret.Text, error) { return password(c.RedisPasswordFile) }

// RedisSentinelPassword returns the sentinels' password of the file; empty if
// there is no file.
func (c *Redis) RedisSentinelPassword() (secret.Text, error) {
	return password(c.RedisSentinelPasswordFile)
}

// password returns the content of a file without the ends of lines behind it.
func password(file string) (secret.Text, error) {
	if file == "" {
		return secret.Text{}, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return secret.Text{}, err
	}
	text := strings.TrimRight(string(content), "\r\n")
	if text == "" {
		return secret.Text{}, fmt.Errorf("%s is empty", file)
	}
	return secret.New(text), nil
}
