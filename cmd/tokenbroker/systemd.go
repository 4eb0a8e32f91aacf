package main

import "github.com/coreos/go-systemd/v22/daemon"

// systemdStopping is what systemd is told at the end (sd_notify(3)).
const systemdStopping = daemon.SdNotifyStopping + "\nSTATUS=shutting down"

// systemdState is what it is told until then, with why the service is not ready. That
// it was ready once is enough for a unit to have started.
func systemdState(why string) string {
	if why != "" {
		return "STATUS=not ready: " + why
	}
	return daemon.SdNotifyReady + "\nSTATUS=ready"
}

// tellSystemd says how the service is to the systemd that has started it as a
// Type=notify.
func (s *service) tellSystemd(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("systemd was not told", "error", err)
	}
}
