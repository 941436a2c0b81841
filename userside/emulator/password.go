package emulator

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// passwordRounds are few: the passwords are of a demo, and answers are waited for.
const passwordRounds = 1000

// maxPassword bounds what is hashed.
const maxPassword = 1024

// passwordChange answers pass_change: the password of the personal area. The old
// one is compared when it is given; before 3.15.23 it had to be. Of neither
// anything is kept but a salted hash, and nothing is shown.
func passwordChange(e *Emulator, r *request) (answer, error) {
	old, fresh := r.param("pass_old"), r.param("pass_new")
	if r.before("3.15.23") && old == "" {
		return answer{}, badRequest("parameter pass_old is missing")
	}
	if len(fresh) > maxPassword {
		return answer{}, badRequest("parameter pass_new: longer than %d bytes", maxPassword)
	}
	hash, err := hashPassword(fresh)
	if err != nil {
		return answer{}, err
	}
	return alter(e, r, "customer_id", ChangePassword, func(c *Customer, now time.Time) error {
		if old != "" && !c.passwordIs(old) {
			return badRequest("the old password is wrong")
		}
		c.PasswordHash, c.ActiveCabinet = hash, now
		return nil
	})
}

// SetPassword sets the password of a customer's personal area; empty takes it away.
func (e *Emulator) SetPassword(id int64, password string) error {
	hash := ""
	if password != "" {
		var err error
		if hash, err = hashPassword(password); err != nil {
			return err
		}
	}
	return e.changeCustomer(id, false, func(c *Customer, _ time.Time) (Change, []MACRecord, error) {
		c.PasswordHash = hash
		return Change{Kind: ChangePassword}, nil, nil
	})
}

// PasswordIs reports whether a customer has this password in the personal area.
func (e *Emulator) PasswordIs(id int64, password string) bool {
	c := e.customer(id)
	return c != nil && c.passwordIs(password)
}

// hashPassword returns salt and hash in hex with a dot between.
func hashPassword(password string) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return saltedHash(salt, password)
}

func saltedHash(salt []byte, password string) (string, error) {
	sum, err := pbkdf2.Key(sha256.New, password, salt, passwordRounds, 32)
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return hex.EncodeToString(salt) + "." + hex.EncodeToString(sum), nil
}

func (c *Customer) passwordIs(password string) bool {
	text, _, ok := strings.Cut(c.PasswordHash, ".")
	salt, err := hex.DecodeString(text)
	if !ok || err != nil || len(password) > maxPassword {
		return false
	}
	hash, err := saltedHash(salt, password)
	return err == nil && subtle.ConstantTimeCompare([]byte(hash), []byte(c.PasswordHash)) == 1
}
