package portal

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certCheck is how often the files are looked at: whoever renews certificates
// writes them anew and does not always reload the agent.
const certCheck = 10 * time.Second

// certificate is a pair of files that may change at any time.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	obs               Observer
	now               func() time.Time

	mu      sync.Mutex // guards the rest
	cert    *tls.Certificate
	stamps  [2]stamp // of the files that were tried last
	checked time.Time
}

// stamp tells one content of a file from another, cheaply.
type stamp struct {
	modified time.Time
	size     int64
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.ModTime(), info.Size()}, nil
}

// load reads the files; on error the earlier certificate stays in use.
func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loadLocked()
}

func (c *certificate) loadLocked() error {
	c.checked = c.now()
	certStamp, err := stampOf(c.certFile)
	if err != nil {
		return err
	}
	keyStamp, err := stampOf(c.keyFile)
	if err != nil {
		return err
	}
	c.stamps = [2]stamp{certStamp, keyStamp}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s and its key: %w", c.certFile, err)
	}
	c.cert = &pair
	c.obs.PortalCertificate(pair.Leaf.NotAfter)
	return nil
}

// get returns the certificate, of the files as they are now.
func (c *certificate) get() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Sub(c.checked) < certCheck {
		return c.cert
	}
	c.checked = c.now()
	certStamp, cerr := stampOf(c.certFile)
	keyStamp, kerr := stampOf(c.keyFile)
	if cerr != nil || kerr != nil || c.stamps == [2]stamp{certStamp, keyStamp} {
		return c.cert // the same, or in the middle of a change
	}
	// The two files are not written at the same instant: a pair that does not
	// fit is looked at again with the next change.
	if err := c.loadLocked(); err != nil {
		c.log.Warn("new certificate of the portal cannot be used; the earlier one stays", "error", err)
	} else {
		c.log.Info("new certificate of the portal in use", "expires", c.cert.Leaf.NotAfter)
	}
	return c.cert
}
