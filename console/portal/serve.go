package portal

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	shutdownGrace = 500 * time.Millisecond // the agent stops within 2 s
	retryFirst    = time.Second
	retryMost     = time.Minute
)

// Run listens where the configuration of New says and serves until ctx ends; it
// gives nil then. It never fails: a busy address or a broken listener is logged
// and tried again, for packets must be served without it.
func (s *Server) Run(ctx context.Context) error {
	o := s.live.Load().opts
	var all sync.WaitGroup
	for _, l := range []struct {
		addr netip.AddrPort
		tls  bool
	}{{o.Listen, false}, {o.HTTPS.Listen, true}} {
		if l.addr.IsValid() {
			all.Go(func() { s.listen(ctx, l.addr, l.tls) })
		}
	}
	all.Wait()
	<-ctx.Done()
	return nil
}

func (s *Server) listen(ctx context.Context, addr netip.AddrPort, overTLS bool) {
	wait := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		l, err := listenAt(ctx, addr)
		if err == nil {
			s.log.InfoContext(ctx, "portal listens", "address", l.Addr().String(), "https", overTLS)
			err = s.serve(ctx, l, overTLS)
		} else if !overTLS && s.way != nil {
			s.shutWay(ctx) // whoever has the port is not to be led to, as by an agent that was killed
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > retryMost {
			wait = retryFirst // it had worked
		}
		s.log.WarnContext(ctx, "portal listener failed, trying again", "address", addr.String(), "error", err, "wait", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
}

// listenAt listens by IPv4 alone: 0.0.0.0 in "tcp" would be every IPv6 address, too.
func listenAt(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	return (&net.ListenConfig{Control: freebind}).Listen(ctx, "tcp4", addr.String())
}

// freebind lets the portal listen on an address that this router does not have
// yet: keepalived may bring it, or take it away, at any time.
func freebind(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_IP, syscall.IP_FREEBIND, 1) }); cerr != nil {
		return cerr
	}
	return err
}

// serve answers on l until ctx ends, and then gives nil.
func (s *Server) serve(ctx context.Context, l net.Listener, overTLS bool) error {
	srv := &http.Server{
		Handler:           s.bounded(s.handler(overTLS)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       5 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificateFor},
		Protocols:         new(http.Protocols),

		DisableGeneralOptionsHandler: true, // "OPTIONS *" gets the page, too
	}
	srv.Protocols.SetHTTP1(true) // one request at a time per connection is what the bounds count
	l = s.door.Listener(limited{l, s.sources, s.obs})
	srv.ConnState = s.door.State
	ended := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	var way sync.WaitGroup
	defer way.Wait()
	defer stop()
	if !overTLS {
		way.Go(func() { s.keepWay(serving) })
	}
	go func() {
		if overTLS {
			ended <- srv.ServeTLS(l, "", "")
		} else {
			ended <- srv.Serve(l)
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	way.Wait() // nothing is led to a port that is closed
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
