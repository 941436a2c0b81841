package console

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"
)

const (
	shutdownGrace = time.Second // the agent stops within 2 s
	retryFirst    = time.Second
	retryMost     = time.Minute
)

// ServeControl serves h on l until ctx ends, and then gives nil. Requests know who asks.
func ServeControl(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	return serve(ctx, l, h, log, changeTimeout+time.Second, withPeer)
}

// ServeHTTP listens on addr and serves h until ctx ends, and then gives nil. It
// never fails: a busy address or a broken listener is logged and tried again,
// for packets must be served without it. bound, if not nil, is called with each
// address that it got.
func ServeHTTP(ctx context.Context, addr netip.AddrPort, h http.Handler, log *slog.Logger, bound func(net.Addr)) error {
	wait := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr.String())
		if err == nil {
			if bound != nil {
				bound(l.Addr())
			}
			err = serve(ctx, l, h, log, 30*time.Second, nil)
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

func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger, writeTimeout time.Duration, connected func(context.Context, net.Conn) context.Context) error {
	s := &http.Server{
		Handler:           h,
		ConnContext:       connected,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		_ = s.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
