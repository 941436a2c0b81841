package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/user"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/userside"
)

// Limits of the files that a configuration names; larger ones are a mistake.
const (
	maxConfigSize = 4 << 20
	maxKeySize    = 4 << 10
	maxCASize     = 1 << 20
)

// Env is what Parse may ask of the world outside of the text. A nil function
// answers that there is nothing.
type Env struct {
	// CredentialsDir is $CREDENTIALS_DIRECTORY, where systemd puts the
	// credentials of the unit; empty outside of a unit.
	CredentialsDir string
	// ReadFile returns at most limit bytes of a regular file, and its mode.
	ReadFile func(path string, limit int64) ([]byte, fs.FileMode, error)
	// LookupGroup fails if the group does not exist.
	LookupGroup func(name string) error
	// Proxy returns the proxy that HTTPS_PROXY and the like name for a URL, nil for none. Nil: there are none.
	Proxy func(*url.URL) (*url.URL, error)
}

// OSEnv is the Env of the running process.
func OSEnv() Env {
	return Env{
		CredentialsDir: os.Getenv("CREDENTIALS_DIRECTORY"),
		ReadFile:       readFile,
		LookupGroup: func(name string) error {
			_, err := user.LookupGroup(name)
			return err
		},
		Proxy: userside.EnvironmentProxy,
	}
}

// Load reads and validates the file at path. An error of type *keys.Errors lists
// everything that is wrong with it; other errors say why it cannot be read.
func Load(path string) (*Config, error) {
	data, _, err := readFile(path, maxConfigSize)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, OSEnv())
}

// Parse validates data as a configuration; name stands for the file in errors.
// The error, if any, is an *keys.Errors.
func Parse(name string, data []byte, env Env) (*Config, error) {
	l := &loader{env: env, cfg: &Config{}}
	warnings, err := keys.Read(name, data, l.cfg, l)
	if err != nil {
		return nil, err
	}
	l.cfg.Warnings = warnings
	return l.cfg, nil
}

// loader knows what goes beyond single keys: the rest of the file, and the host.
type loader struct {
	env Env
	cfg *Config
}

// readFile refuses what is no regular file: a FIFO or a device would block
// the agent's start or its reload.
func readFile(path string, limit int64) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, err
	}
	if int64(len(data)) > limit {
		return nil, 0, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("larger than %d bytes", limit)}
	}
	return data, info.Mode(), nil
}

func (e Env) read(path string, limit int64) ([]byte, fs.FileMode, error) {
	if e.ReadFile == nil {
		return nil, 0, fs.ErrNotExist
	}
	return e.ReadFile(path, limit)
}

// holdsCertificate reports whether pem has at least one usable certificate.
func holdsCertificate(pem []byte) bool {
	return x509.NewCertPool().AppendCertsFromPEM(pem)
}

// errnoText is the cause of a file error without the path: an operator who
// pastes the key itself where its path belongs must not find it in a log.
func errnoText(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
