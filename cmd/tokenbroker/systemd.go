package main

import "github.com/coreos/go-systemd/v22/daemon"

// States that systemd is told of (sd_notify(3)); where there is none, nobody is.
const (
	systemdReady    = daemon.SdNotifyReady + "\nSTATUS=ready"
	systemdWaits    = "STATUS=not ready: redis does not serve"
	systemdStopping = daemon.SdNotifyStopping + "\nSTATUS=shutting down"
)

// tellSystemd says how the service is to the systemd that has started it as a
// Type=notify.
func (s *service) tellSystemd(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("systemd was not told", "error", err)
	}
}
