package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/userside"
)

// CredentialName is the name of the systemd credential that holds the API key.
const CredentialName = "userside-key"

// keySource are the keys that say where the API key is. Nothing stays of them but
// the key itself.
type keySource struct {
	// A file with the API key alone in it, not readable for everybody (example).
	// When it is left out, or belongs to root alone, the systemd credential
	// "userside-key" of the unit is used. A reload reads the file again, a changed
	// credential needs a restart.
	KeyFile string `cfg:"key_file" read:"secret" example:"/etc/usher/userside.key"`

	// The key itself, instead of key_file. Refused unless allow_inline_key is true,
	// because configuration files are copied, mailed and committed.
	Inline Secret `cfg:"key" read:"secret"`

	// Allow key. Better not.
	AllowInline bool `cfg:"allow_inline_key" default:"false"`
}

// apiKey resolves the one source of the API key: key_file, or key with the
// operator's explicit consent, or the unit's credential when there is neither
// or the file may not be read. No error repeats
// what was found, nor what key_file says: it may be the key, misplaced.
func (l *loader) apiKey(m keys.Mapping, allowed bool) userside.Key {
	file, inline := m.Get("key_file"), m.Get("key")
	switch {
	case file.Present() && inline.Present():
		inline.Problem("given beside key_file; want exactly one of them")
		return ""
	case inline.Present():
		s, ok := inline.Raw("the API key as text")
		if !ok {
			return ""
		}
		if !allowed {
			inline.Problem("the API key in clear in this file; put it into key_file, or set allow_inline_key: true")
			return ""
		}
		return userside.Key(checkSecret(inline, s, "the API key"))
	case file.Present():
		path, ok := file.Raw("a path")
		if !ok {
			return ""
		}
		if !filepath.IsAbs(path) {
			file.Problem("want the absolute path of a file that holds the API key")
			return ""
		}
		return userside.Key(l.readSecret(file, l.orCredential(path, CredentialName), "the API key"))
	case l.hasCredential(CredentialName):
		return userside.Key(l.readSecret(file, l.credential(CredentialName), "the API key"))
	default:
		file.Problem("missing; want the absolute path of a file that holds the API key (or start with the systemd credential %s)", CredentialName)
		return ""
	}
}

// orCredential returns path, or the credential where the file is root's alone: the
// same file serves root at the command line, and the unit, whose user may not
// read it but was handed it as a credential.
func (l *loader) orCredential(path, name string) string {
	if _, _, err := l.env.read(path, maxKeySize); errors.Is(err, fs.ErrPermission) && l.hasCredential(name) {
		return l.credential(name)
	}
	return path
}

func (l *loader) credential(name string) string { return filepath.Join(l.env.CredentialsDir, name) }

func (l *loader) hasCredential(name string) bool {
	if l.env.CredentialsDir == "" {
		return false
	}
	_, _, err := l.env.read(l.credential(name), maxKeySize)
	return err == nil
}

// readSecret reads what nobody else may know: the API key, a secret.
func (l *loader) readSecret(v keys.Value, path, what string) Secret {
	data, mode, err := l.env.read(path, maxKeySize)
	if err != nil {
		v.Problem("the file cannot be read: %s", errnoText(err))
		return ""
	}
	if mode.Perm()&0o007 != 0 {
		v.Problem("everybody on this host can read the file (mode %04o); want mode 0640 or 0600", mode.Perm())
		return ""
	}
	return checkSecret(v, string(data), what)
}

// checkSecret trims what editors append and refuses what cannot be a key.
func checkSecret(v keys.Value, s, what string) Secret {
	s = strings.TrimSpace(s)
	if s == "" {
		v.Problem("%s is empty", what)
		return ""
	}
	for _, c := range s {
		if c <= ' ' || c == 0x7f {
			v.Problem("%s has a blank, a line break or a control character inside; want one line", what)
			return ""
		}
	}
	return Secret(s)
}
