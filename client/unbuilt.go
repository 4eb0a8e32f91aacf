package client

import "errors"

var errUnbuilt = errors.New("not there yet")
