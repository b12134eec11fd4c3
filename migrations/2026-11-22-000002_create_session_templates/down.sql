drop table session_templates;
