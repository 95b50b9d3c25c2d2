DROP TABLE guards;
DROP TABLE one_time_secrets;
DROP TABLE sessions;
DROP TABLE users;
