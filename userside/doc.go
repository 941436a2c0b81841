// Package userside is a typed client of the HTTP API of the UserSide ERP.
package userside
