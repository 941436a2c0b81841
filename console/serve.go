package console

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/console/door"
)

const (
	retryFirst = time.Second
	retryMost  = time.Minute
)

// ControlTimeouts are those of the control socket: a change of state waits for its turn and for the ERP.
var ControlTimeouts = door.Timeouts{Write: turnTimeout + changeTimeout + time.Second}

// HookTimeouts are those of the hints: each is one small packet, and the shipped PHP waits
// for its answer for 0.3 s.
var HookTimeouts = door.Timeouts{Header: 2 * time.Second, Read: 2 * time.Second}

// ServeControl serves h on l behind d until ctx ends, and then gives nil. Requests know who asks.
func ServeControl(ctx context.Context, l net.Listener, h http.Handler, d *door.Door, log *slog.Logger) error {
	return serve(ctx, l, h, d, log, withPeer)
}

// ServeHTTP listens on addr and serves h behind d until ctx ends, and then gives nil. It
// never fails: a busy address or a broken listener is logged and tried again,
// for packets must be served without it. bound, if not nil, is called with each
// address that it got.
func ServeHTTP(ctx context.Context, addr netip.AddrPort, h http.Handler, d *door.Door, log *slog.Logger, bound func(net.Addr)) error {
	wait := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		l, err := (&net.ListenConfig{}).Listen(ctx, network(addr), addr.String())
		if err == nil {
			if bound != nil {
				bound(l.Addr())
			}
			err = serve(ctx, l, h, d, log, nil)
		}
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > retryMost {
			wait = retryFirst // it had worked
		}
		log.WarnContext(ctx, "console listener failed, trying again", "address", addr.String(), "error", err, "wait", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
	return nil
}

// network returns the network to listen in: 0.0.0.0 means every IPv4 address, and in "tcp"
// it would be every IPv6 address of the host, too.
func network(addr netip.AddrPort) string {
	if addr.Addr().Unmap().Is4() {
		return "tcp4"
	}
	return "tcp"
}

func serve(ctx context.Context, l net.Listener, h http.Handler, d *door.Door, log *slog.Logger, connected func(context.Context, net.Conn) context.Context) error {
	return d.Serve(ctx, l, &http.Server{
		Handler:        h,
		ConnContext:    connected,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	})
}
