package redisstore

import (
	"embed"

	"github.com/redis/go-redis/v9"
)

// The scripts run whole or not at all, and nothing else runs meanwhile.
var (
	loadScript    = script("load")
	saveScript    = script("save", "count")
	failScript    = script("fail", "count")
	admitScript   = script("admit")
	leaseScript   = script("lease")
	releaseScript = script("release")
	swapScript    = script("swap")
	restoreScript = script("restore")
	placeScript   = script("place")

	resealScript        = script("reseal")
	resealTenantsScript = script("reseal_tenants")
	overviewScript      = script("overview")
	attendScript        = script("attend")
	replicasScript      = script("replicas")
)

//go:embed scripts/*.lua
var sources embed.FS

// scriptNames has the name of each script, by the two ways in which Redis is told
// which to run: its source, or its digest.
var scriptNames = map[string]string{}

// script returns the script that is in the file of this name, behind those that it
// stands on.
func script(name string, behind ...string) *redis.Script {
	var source string
	for _, part := range append(behind, name) {
		content, err := sources.ReadFile("scripts/" + part + ".lua")
		if err != nil {
			panic(err) //nolint:forbidigo // It is not there for anybody, or for all.
		}
		source += string(content)
	}
	s := redis.NewScript(source)
	scriptNames[source], scriptNames[s.Hash()] = name, name
	return s
}

// scriptOf returns the name of the script that a command runs; empty: none that is
// known.
func scriptOf(cmd redis.Cmder) string {
	if name := cmd.Name(); name != "eval" && name != "evalsha" || len(cmd.Args()) < 2 {
		return ""
	}
	said, _ := cmd.Args()[1].(string)
	return scriptNames[said]
}
