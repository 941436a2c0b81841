package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// serviceManager is systemd, or what speaks as it does. Without one it does
// nothing. It implements agent.Service.
type serviceManager struct{ log *slog.Logger }

// Ready implements agent.Service.
func (m serviceManager) Ready() { m.notify(daemon.SdNotifyReady) }

// Reloading implements agent.Service.
func (m serviceManager) Reloading() { m.notify(reloading()) }

// Stopping implements agent.Service.
func (m serviceManager) Stopping() { m.notify(daemon.SdNotifyStopping) }

func (m serviceManager) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.log.Warn("service manager cannot be told", "state", state, "error", err)
	}
}

// reloading is the message before a reload (sd_notify(3)); READY=1 follows it.
func reloading() string {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, ts.Nano()/1000)
}

// Watch implements agent.Service: it feeds the watchdog at half its interval, as
// long as alive says so within that time.
func (m serviceManager) Watch(ctx context.Context, alive func(context.Context) error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		check, cancel := context.WithTimeout(ctx, interval/4)
		err := alive(check)
		cancel()
		if err == nil {
			m.notify(daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			m.log.Error("watchdog is not fed", "error", err)
		}
	}
}
