package userside

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"sync"
)

// renewing is the transport of a client with a CA file. The file is read again
// when the ERP shows a certificate that is not believed: both may have been
// renewed while the client runs.
type renewing struct {
	opts Options

	mu  sync.Mutex // guards what follows
	pem []byte     // of the file, as tr has it
	tr  *http.Transport
}

func newRenewing(o Options) (*renewing, error) {
	pem, _ := os.ReadFile(o.CAFile) // newTransport says what is wrong with it
	tr, err := newTransport(o)
	return &renewing{opts: o, pem: pem, tr: tr}, err
}

// RoundTrip implements http.RoundTripper.
func (t *renewing) RoundTrip(r *http.Request) (*http.Response, error) {
	t.mu.Lock()
	tr := t.tr
	t.mu.Unlock()
	resp, err := tr.RoundTrip(r)
	var unbelieved *tls.CertificateVerificationError
	if !errors.As(err, &unbelieved) {
		return resp, err
	}
	renewed := t.renew(tr)
	if renewed == nil {
		return resp, err
	}
	again := r.Clone(r.Context()) // nothing of it was sent
	if r.GetBody != nil {
		if again.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	return renewed.RoundTrip(again)
}

// renew returns a transport with what the file holds now; nil if that is what the failed one has.
func (t *renewing) renew(failed *http.Transport) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tr != failed {
		return t.tr // somebody was quicker
	}
	pem, err := os.ReadFile(t.opts.CAFile)
	if err != nil || bytes.Equal(pem, t.pem) {
		return nil
	}
	tr, err := newTransport(t.opts)
	if err != nil {
		return nil // half written, say: the one in use goes on failing with its own error
	}
	failed.CloseIdleConnections()
	t.pem, t.tr = pem, tr
	return tr
}

// CloseIdleConnections is what http.Client looks for.
func (t *renewing) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tr.CloseIdleConnections()
}
